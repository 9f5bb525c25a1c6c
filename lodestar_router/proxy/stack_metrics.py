"""The counters of production-stack's router, under its names and labels.

    vllm:num_incoming_requests_total{model}            every request with a model, served or not
    vllm:input_tokens_total, vllm:output_tokens_total{server,model}     of whole answers
    vllm:request_errors_total{server,model,error_type} what broke, by the error's class
    vllm:request_latency_seconds{server,model,status}  success or error; not of clients that left

Its gauges are read from the fleet at each scrape: see stack_gauges. `server` is an engine's
URL; its series end with it. Models that no engine is known to serve are clients' own words:
the first hundred have a series each, the others share "other".

In       each attempt at an engine, and how it ended.
Out      metric families; `recent` per engine.
Cost     3 us per request, half of it for the usage in the answer.
Source   services/metrics_service and stats/request_stats.py of production-stack at a6c01db.
"""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lodestar_router.core.types import Ending, EngineId, EngineSpec
from lodestar_router.errors import EngineError
from lodestar_router.proxy.recent import Recent
from lodestar_router.proxy.series import Counter, CounterSeries, Histogram, HistogramSeries

_LATENCY_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_UNKNOWN_MODELS = 100
OTHER_MODELS = "other"


class Account:
    """One model at one engine; its series appear as they are first counted."""

    __slots__ = ("_input", "_metrics", "_names", "_output", "_succeeded", "recent")

    def __init__(self, metrics: "StackMetrics", names: tuple[str, str], recent: Recent) -> None:
        self._metrics = metrics
        self._names = names
        self.recent = recent
        self._input: CounterSeries = metrics.input_tokens.labels(*names)
        self._output: CounterSeries = metrics.output_tokens.labels(*names)
        self._succeeded: HistogramSeries | None = None

    def ended(
        self,
        now_s: float,
        ending: Ending,
        *,
        latency_s: float,
        error: EngineError | None,
    ) -> None:
        """An attempt is over; what was not sent, or not waited for, says nothing of the engine."""
        if ending in (Ending.CANCELLED, Ending.MOVED):
            return
        self.recent.ended(now_s, latency_s=latency_s)
        if ending is Ending.COMPLETED:
            if self._succeeded is None:
                self._succeeded = self._metrics.latency.labels(*self._names, "success")
            self._succeeded.observe(latency_s)
            return
        self._metrics.latency.labels(*self._names, "error").observe(latency_s)
        if error is not None:
            self._metrics.errors.labels(*self._names, type(error).__name__).inc()

    def answered(self, input_tokens: int | None, output_tokens: int | None) -> None:
        """A whole answer, as far as its tokens were counted."""
        self._input.value += input_tokens or 0
        self._output.value += output_tokens or 0


class StackMetrics:
    """See the module.

    Args:
        window_s: what `recent` looks back on.
    """

    def __init__(self, registry: CollectorRegistry, window_s: float) -> None:
        own: dict[str, CollectorRegistry] = {"registry": registry}
        self._incoming = Counter(
            "vllm:num_incoming_requests", "Requests that name a model, served or not.",
            ["model"], **own,
        )  # fmt: skip
        by = ["server", "model"]
        self.input_tokens = Counter(
            "vllm:input_tokens", "Prompt tokens of answered requests.", by, **own
        )
        self.output_tokens = Counter("vllm:output_tokens", "Tokens of answers.", by, **own)
        self.errors = Counter(
            "vllm:request_errors", "Attempts that broke, by the class of the error.",
            [*by, "error_type"], **own,
        )  # fmt: skip
        self.latency = Histogram(
            "vllm:request_latency_seconds", "From dispatch to the last byte of the answer.",
            [*by, "status"], buckets=_LATENCY_BUCKETS_S, **own,
        )  # fmt: skip
        registry.register(_Declared())
        self._window_s = window_s
        self._accounts: dict[tuple[EngineId, str], Account] = {}
        self._recent: dict[EngineId, Recent] = {}
        self._unknown: set[str] = set()

    def incoming(self, model: str, *, known: bool) -> None:
        """A request for a model; `known` if an engine is known to serve it, now or before."""
        if not known and model not in self._unknown:
            if len(self._unknown) < _UNKNOWN_MODELS:
                self._unknown.add(model)
            else:
                model = OTHER_MODELS
        self._incoming.labels(model).inc()

    def sent(self, spec: EngineSpec, model: str, now_s: float) -> Account:
        """A request is being sent to an engine; the account that is to hear of its end."""
        account = self._accounts.get((spec.engine_id, model))
        if account is None:
            recent = self._recent.setdefault(spec.engine_id, Recent(self._window_s, now_s))
            account = Account(self, (spec.url, model), recent)
            self._accounts[spec.engine_id, model] = account
        account.recent.arrived(now_s)
        return account

    def provider_failed(self, provider: str, model: str, error: EngineError) -> None:
        """An external provider broke; `server` is its name."""
        self.errors.labels(provider, model, type(error).__name__).inc()

    def recent(self, engine_id: EngineId) -> Recent | None:
        """What the engine did lately; None if it never was sent anything."""
        return self._recent.get(engine_id)

    def forget(self, engine_id: EngineId) -> None:
        """The engine has left and its last request has ended."""
        self._recent.pop(engine_id, None)
        for key in [key for key in self._accounts if key[0] == engine_id]:
            url, _ = self._accounts.pop(key)._names
            for metric in self._by_server:
                metric.remove_by_labels({"server": url})

    @property
    def _by_server(self) -> Sequence[Counter | Histogram]:
        return self.input_tokens, self.output_tokens, self.errors, self.latency


class _Declared(Collector):
    """A name that the original declares and never gives a value: autoscalers add up those
    of the engines under it."""

    def collect(self) -> Iterable[Metric]:
        """Called at each scrape."""
        yield GaugeMetricFamily("vllm:num_requests_waiting", "See the engines.", labels=["server"])
