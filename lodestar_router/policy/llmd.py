"""llm-d's weighted scorers: prefix match, waiting requests, KV usage.

In       prompt tokens, cached prefix, the engines' load reports.
Out      Decision; a cost is what is missing to the highest possible score, no unit.
Cost     O(candidates).
Source   llm-d/llm-d-router at ebab687: scorers prefix-cache, queue and
         kv-cache-utilization with the max-score picker; Helm's weights, and those
         of its sample for exact prefix matches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, EngineSnapshot, RoutedRequest
from lodestar_router.policy.by_cost import decide_by_cost


@dataclass(frozen=True, slots=True)
class Weights:
    """What each score counts; scores are 0..1, 1 best."""

    prefix: float
    queue: float
    kv_usage: float


class _Llmd:
    """Choose the highest weighted sum of three scores.

        score(c) = p * cached_prefix_tokens(c) / prompt_tokens
                 + q * (max(W) - W(c)) / (max(W) - min(W))         1 if all are equal
                 + k * (1 - kv_cache_usage_ratio(c))
        cost(c)  = p + q + k - score(c)

    W is num_waiting_reqs of the engine's last report: a burst between two reports
    does not show in it, and that is part of the formula. For an engine that never
    reported, W is the number of this router's requests there whose first token is
    awaited, and the usage is that of the tokens it has in flight there, 0 if the
    capacity is unknown. Ties random.
    """

    name: ClassVar[str]
    reads_prompt: ClassVar[bool] = True
    weights: ClassVar[Weights]

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        weights = self.weights
        waiting = [_waiting(c.engine) for c in candidates]
        most = max(waiting)
        spread = most - min(waiting)
        costs = [
            weights.prefix * (1.0 - min(c.cached_prefix_tokens / request.prompt_tokens, 1.0))
            + weights.queue * (1.0 - ((most - own) / spread if spread else 1.0))
            + weights.kv_usage * _kv_usage_ratio(c.engine)
            for c, own in zip(candidates, waiting, strict=True)
        ]
        return decide_by_cost(self.name, candidates, costs, self._rng)


class Llmd322(_Llmd):
    """Prefix 3, queue 2, KV usage 2: the weights of llm-d's Helm chart."""

    name: ClassVar[str] = "llmd_322"
    weights: ClassVar[Weights] = Weights(prefix=3.0, queue=2.0, kv_usage=2.0)


class Llmd211(_Llmd):
    """Prefix 2, queue 1, KV usage 1: llm-d's sample for exact prefix matches."""

    name: ClassVar[str] = "llmd_211"
    weights: ClassVar[Weights] = Weights(prefix=2.0, queue=1.0, kv_usage=1.0)


def _waiting(engine: EngineSnapshot) -> int:
    if engine.load is None:
        return engine.inflight_prefill_requests
    return engine.load.num_waiting_reqs


def _kv_usage_ratio(engine: EngineSnapshot) -> float:
    if engine.load is not None:
        return engine.load.kv_cache_usage_ratio
    if not engine.kv_blocks or not engine.block_size_tokens:
        return 0.0
    tokens = engine.inflight_prefill_tokens + engine.inflight_decode_tokens
    return min(tokens / (engine.kv_blocks * engine.block_size_tokens), 1.0)
