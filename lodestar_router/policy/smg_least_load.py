"""SMG's `least_load`: seconds to drain the queue, plus a price on a full KV cache.

In       own in-flight counts, the engines' load reports and their ages.
Out      Decision; costs in seconds, in requests while no engine reports.
Cost     O(candidates).
Source   lightseekorg/smg model_gateway/src/policies/least_load.rs at 73da68c.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, EngineLoad, RoutedRequest
from lodestar_router.policy.by_cost import decide_by_cost

KV_PRESSURE_WEIGHT_S = 0.15
THROUGHPUT_TOKENS_PER_S = 2000.0
MEAN_PREFILL_TOKENS = 1024
STALE_AFTER_S = 30.0  # three polls of 10 s
MAX_USAGE_RATIO = 0.999  # keeps k / (1 - k) finite


class SmgLeastLoad:
    """Choose the lowest expected wait.

        cost(c) = (queued + sent) / throughput + 0.15 * k / (1 - k)

        queued + sent  uncached prompt tokens waiting at c, and those sent since it reported
        throughput     tokens/s of c's GPU kind, 2,000 where none is given
        k              kv_cache_usage_ratio(c), at most 0.999

    No engine reports its waiting tokens, and SMG's polls are 10 s apart. Both terms
    are replaced by what they estimate: inflight_prefill_tokens(c), this router's
    uncached tokens there whose first token is awaited, plus 1,024 for each waiting
    request reported beyond this router's own. SMG reads the throughput from the
    engine, as generated tokens; `throughput_tokens_per_s` gives it per GPU kind.

    An engine without a report of the last 30 s costs inflight_requests * 1,024 /
    mean throughput of those that have one; when no engine has one, all cost their
    inflight_requests. The own request's length and cached prefix do not count.
    Ties random, where SMG takes the first.
    """

    name: ClassVar[str] = "smg_least_load"
    reads_prompt: ClassVar[bool] = True  # for inflight_prefill_tokens, which it lives on

    def __init__(
        self, rng: Random, *, throughput_tokens_per_s: Mapping[str, float] | None = None
    ) -> None:
        self._rng = rng
        self._throughput_tokens_per_s = dict(throughput_tokens_per_s or {})

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        loads = [_fresh_load(candidate, request.now_s) for candidate in candidates]
        return decide_by_cost(self.name, candidates, self._costs(candidates, loads), self._rng)

    def _costs(
        self, candidates: Sequence[Candidate], loads: Sequence[EngineLoad | None]
    ) -> list[float]:
        reporting = [
            self._throughput(candidate)
            for candidate, load in zip(candidates, loads, strict=True)
            if load is not None
        ]
        if not reporting:
            return [float(c.engine.inflight_requests) for c in candidates]
        nominal = sum(reporting) / len(reporting)
        return [
            c.engine.inflight_requests * MEAN_PREFILL_TOKENS / nominal
            if load is None
            else self._expected_wait_s(c, load)
            for c, load in zip(candidates, loads, strict=True)
        ]

    def _expected_wait_s(self, candidate: Candidate, load: EngineLoad) -> float:
        engine = candidate.engine
        foreign_reqs = max(load.num_waiting_reqs - engine.inflight_prefill_requests, 0)
        tokens = engine.inflight_prefill_tokens + foreign_reqs * MEAN_PREFILL_TOKENS
        usage_ratio = min(max(load.kv_cache_usage_ratio, 0.0), MAX_USAGE_RATIO)
        pressure_s = KV_PRESSURE_WEIGHT_S * usage_ratio / (1.0 - usage_ratio)
        return tokens / self._throughput(candidate) + pressure_s

    def _throughput(self, candidate: Candidate) -> float:
        return self._throughput_tokens_per_s.get(candidate.engine.gpu, THROUGHPUT_TOKENS_PER_S)


def _fresh_load(candidate: Candidate, now_s: float) -> EngineLoad | None:
    age_s = candidate.engine.load_age_s(now_s)
    return candidate.engine.load if age_s is not None and age_s <= STALE_AFTER_S else None
