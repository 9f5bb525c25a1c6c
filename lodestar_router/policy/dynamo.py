"""NVIDIA Dynamo's KV router at temperature 0: prefill to do plus blocks in use.

In       prompt tokens, cached prefix, this router's own in-flight tokens.
Out      Decision; costs in KV blocks.
Cost     O(candidates).
Source   ai-dynamo/dynamo 1.6.1 lib/llm/src/kv_router, with its defaults: overlap credit
         1, prefill load scale 1, no weight on requests, no decay, temperature 0.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, RoutedRequest
from lodestar_router.policy.by_cost import decide_by_cost

BLOCK_SIZE_TOKENS = 16  # of an engine that did not say; vLLM's default


class Dynamo:
    """Choose the lowest sum of prefill work and blocks in use, both after this request.

        cost(c) = max((P + n) / B - credited, 0) + D + ceil(n / B)

        P        = inflight_prefill_tokens(c): uncached tokens whose first token is awaited
        n        = prompt tokens, B = block size in tokens (unknown: 16)
        credited = whole blocks of cached_prefix_tokens(c)
        D        = blocks of the requests in flight on c, prefill and decode

    Dynamo counts a block that several requests share once in D. The router knows
    tokens only, so D = (P + inflight_decode_tokens(c)) / B: shared blocks count per
    request that decodes, and the cached part of one still in prefill not at all.
    Answers are not counted, as in Dynamo by default. Ties random, as in Dynamo.
    """

    name: ClassVar[str] = "dynamo"
    reads_prompt: ClassVar[bool] = True

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        costs = [_cost_blocks(request.prompt_tokens, candidate) for candidate in candidates]
        return decide_by_cost(self.name, candidates, costs, self._rng)


def _cost_blocks(prompt_tokens: int, candidate: Candidate) -> float:
    engine = candidate.engine
    size = engine.block_size_tokens or BLOCK_SIZE_TOKENS
    pending_tokens = engine.inflight_prefill_tokens
    prefill_blocks = (pending_tokens + prompt_tokens) / size
    new_blocks = max(prefill_blocks - candidate.cached_prefix_tokens // size, 0.0)
    blocks_in_use = (pending_tokens + engine.inflight_decode_tokens) / size
    return new_blocks + blocks_in_use - (-prompt_tokens // size)
