"""LMETRIC: prefill work ahead of the first token, times the size of the batch.

In       prompt tokens, cached prefix, in-flight counts; no report of the engine.
Out      Decision; costs in tokens x requests.
Cost     O(candidates).
Source   arXiv 2603.15202; as shipped: vllm-project/router 0.1.17, `kv_aware`.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, RoutedRequest
from lodestar_router.policy.by_cost import decide_by_cost


class Lmetric:
    """Choose the lowest product of prefill tokens and requests.

        cost(c)  = (P + n - credited) * (r + 1)
        P        = inflight_prefill_tokens(c): uncached tokens whose first token is awaited
        n        = prompt tokens
        credited = min(cached_prefix_tokens(c), B * floor((n - 1) / B))
        r        = inflight_requests(c), B = its block size in tokens (unknown: 1)

    The last prompt token is always computed, so at most n - 1 tokens are credited
    and no cost is zero. Both counts are this router's own, and current. The paper
    takes r from the engine (running + waiting); as shipped it is the router's.
    Ties random, where the shipped code takes the first.
    """

    name: ClassVar[str] = "lmetric"
    reads_prompt: ClassVar[bool] = True

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        costs = [_cost(request.prompt_tokens, candidate) for candidate in candidates]
        return decide_by_cost(self.name, candidates, costs, self._rng)


def _cost(prompt_tokens: int, candidate: Candidate) -> float:
    engine = candidate.engine
    block_size_tokens = engine.block_size_tokens or 1
    creditable_tokens = (prompt_tokens - 1) // block_size_tokens * block_size_tokens
    new_tokens = prompt_tokens - min(candidate.cached_prefix_tokens, creditable_tokens)
    return float((engine.inflight_prefill_tokens + new_tokens) * (engine.inflight_requests + 1))
