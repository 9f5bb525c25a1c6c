"""Every metric of the router's own, declared once, with its unit.

Names start with `lodestar:`; those that production-stack's router has as well are in
`stack`. Labels are bounded: engines and models that the
fleet knows, policies and reasons that the code names.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from lodestar_router.core.types import Decision, Ending, EngineId
from lodestar_router.proxy.series import Counter, Histogram
from lodestar_router.proxy.stack_metrics import StackMetrics

# From a cached short prompt on a fast GPU to a saturated fleet.
_TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2)

GaugeRow = tuple[str, str, dict[str, str], float]  # name, help, labels, value


class Metrics:
    """The registry and what the request path counts into it."""

    content_type = b"text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, *, window_s: float = 60.0) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.stack = StackMetrics(self.registry, window_s)
        self._requests = Counter(
            "lodestar:requests",
            "Requests by how they ended.",
            ["engine", "ending"],
            registry=self.registry,
        )
        self._refused = Counter(
            "lodestar:refused_requests",
            "Requests that no engine answered, by error code.",
            ["code"],
            registry=self.registry,
        )
        self._clients = Counter(
            "lodestar:client_requests",
            "Requests by the name of the client whose key they bear.",
            ["client"],
            registry=self.registry,
        )
        self._queue_wait = Histogram(
            "lodestar:queue_wait_seconds",
            "How long requests waited for their turn under --max-concurrent, if they did.",
            [],
            buckets=_TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self._held = Histogram(
            "lodestar:hold_seconds",
            "How long requests waited at the router for their engine to begin them, if they did.",
            ["engine"],
            buckets=_TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self._decisions = Counter(
            "lodestar:decisions",
            "Routing decisions by policy and what decided.",
            ["policy", "engine", "reason"],
            registry=self.registry,
        )
        self._retries = Counter(
            "lodestar:retries",
            "Requests sent to another engine after this one failed.",
            ["engine"],
            registry=self.registry,
        )
        self._retries_denied = Counter(
            "lodestar:retries_denied",
            "Requests not sent to another engine because the retry budget was spent.",
            registry=self.registry,
        )
        self._engine_failures = Counter(
            "lodestar:engine_failures",
            "What engines did wrong, retried or not; broken: after bytes had gone to the client.",
            ["engine", "cause", "broken"],
            registry=self.registry,
        )
        self._ttft = Histogram(
            "lodestar:time_to_first_token_seconds",
            "From the routing decision to the first token of a stream.",
            ["engine"],
            buckets=_TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self._prefill = Histogram(
            "lodestar:prefill_seconds",
            "Of disaggregated prefill: from the routing decision to the prefill engine's answer.",
            ["engine"],
            buckets=_TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self._prefill_legs = Counter(
            "lodestar:prefill_legs",
            "Of disaggregated prefill: legs by what came of them, handed_over or why the decode "
            "engine was left to compute the prompt; not_fetched comes after handed_over.",
            ["outcome"],
            registry=self.registry,
        )
        self._arm_decisions = Counter(
            "lodestar:arm_decisions",
            "Decisions while the learned policy is on trial, by the policy that steered and "
            "whether both named the same engine.",
            ["arm", "policy", "agreement"],
            registry=self.registry,
        )
        self._arm_ttft = Histogram(
            "lodestar:arm_time_to_first_token_seconds",
            "TTFT of streams while the learned policy is on trial, by the policy that steered.",
            ["arm"],
            buckets=_TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self._prompt_tokens = Counter(
            "lodestar:prompt_tokens",
            "Prompt tokens sent, as the router counts them.",
            ["engine"],
            registry=self.registry,
        )
        self._expected_cached = Counter(
            "lodestar:expected_cached_tokens",
            "Prompt tokens expected in the engine's KV cache, where it reported its own count.",
            ["engine"],
            registry=self.registry,
        )
        self._reported_cached = Counter(
            "lodestar:reported_cached_tokens",
            "Prompt tokens that the engine reported as cached.",
            ["engine"],
            registry=self.registry,
        )
        self._cached_agreement = Counter(
            "lodestar:cached_tokens_agreement",
            "Requests by whether expected and reported cached tokens are equal.",
            ["engine", "agreement"],
            registry=self.registry,
        )

    def decided(self, decision: Decision, prompt_tokens: int) -> None:
        """Count a decision."""
        self._decisions.labels(decision.policy, decision.engine_id, decision.reason).inc()
        self._prompt_tokens.labels(decision.engine_id).inc(prompt_tokens)
        if decision.arm is not None and decision.other is not None:
            agreed = decision.other.engine_id == decision.engine_id
            self._arm_decisions.labels(
                decision.arm.value, decision.policy, "equal" if agreed else "differs"
            ).inc()

    def first_token(self, decision: Decision, ttft_s: float) -> None:
        """Observe a stream's time to first token."""
        self._ttft.labels(decision.engine_id).observe(ttft_s)
        if decision.arm is not None:
            self._arm_ttft.labels(decision.arm.value).observe(ttft_s)

    def prefilled(self, decision: Decision, seconds: float) -> None:
        """Observe a prefill leg that was answered; of a trial it is the TTFT."""
        self._prefill.labels(decision.engine_id).observe(seconds)
        if decision.arm is not None:
            self._arm_ttft.labels(decision.arm.value).observe(seconds)

    def prefill_leg(self, outcome: str) -> None:
        """Count a prefill leg by what came of it."""
        self._prefill_legs.labels(outcome).inc()

    def ended(self, engine_id: str, ending: Ending) -> None:
        """Count the end of a routed request."""
        self._requests.labels(engine_id, ending.value).inc()

    def refused(self, code: str) -> None:
        """Count a request that the router answered with an error of its own."""
        self._refused.labels(code).inc()

    def asked(self, client: str) -> None:
        """Count a request with a client's key."""
        self._clients.labels(client).inc()

    def forget_client(self, client: str) -> None:
        """Drop the series of a client that has no key any more."""
        self._clients.remove_by_labels({"client": client})

    def queued(self, wait_s: float) -> None:
        """Observe the wait of a request that got its turn."""
        self._queue_wait.labels().observe(wait_s)

    def held(self, engine_id: str, wait_s: float) -> None:
        """Observe the wait of a request that was held back for its engine."""
        self._held.labels(engine_id).observe(wait_s)

    def retried(self, engine_id: str) -> None:
        """Count a request that `engine_id` failed and another engine gets."""
        self._retries.labels(engine_id).inc()

    def retry_denied(self) -> None:
        """Count a retry that the budget did not pay for."""
        self._retries_denied.inc()

    def engine_failed(self, engine_id: str, cause: str, *, broken: bool = False) -> None:
        """Count a failure of an engine; `cause` is one of the names that the code has."""
        self._engine_failures.labels(engine_id, cause, "yes" if broken else "no").inc()

    def cached(self, engine_id: str, *, expected_tokens: int, reported_tokens: int) -> None:
        """Compare the view of an engine's cache with what the engine says."""
        self._expected_cached.labels(engine_id).inc(expected_tokens)
        self._reported_cached.labels(engine_id).inc(reported_tokens)
        agreement = "equal" if expected_tokens == reported_tokens else "differs"
        self._cached_agreement.labels(engine_id, agreement).inc()

    def forget(self, engine_id: EngineId) -> None:
        """Drop the series of an engine that left, so that pods coming and going leave none."""
        self.stack.forget(engine_id)
        for metric in (
            self._requests, self._decisions, self._retries, self._engine_failures, self._ttft,
            self._prefill, self._prompt_tokens, self._expected_cached, self._reported_cached,
            self._cached_agreement, self._held,
        ):  # fmt: skip
            metric.remove_by_labels({"engine": engine_id})

    def add_gauges(self, rows: Callable[[], Iterable[GaugeRow]]) -> None:
        """Read gauges from the objects that own the values, at every scrape."""
        self.registry.register(_GaugeCollector(rows))

    def exposition(self) -> bytes:
        """The whole page in Prometheus' text format."""
        return generate_latest(self.registry)


class _GaugeCollector(Collector):
    def __init__(self, rows: Callable[[], Iterable[GaugeRow]]) -> None:
        self._rows = rows

    def collect(self) -> Iterable[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for name, help_text, labels, value in self._rows():
            family = families.get(name)
            if family is None:
                family = families[name] = GaugeMetricFamily(name, help_text, labels=list(labels))
            family.add_metric(list(labels.values()), value)
        return families.values()
