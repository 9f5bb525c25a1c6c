"""Prefix affinity unless the fleet is out of balance: vllm-router's `cache_aware`.

In       prompt tokens, cached prefix, in-flight requests.
Out      Decision; the unit of its costs depends on the rule that decided, see below.
Cost     O(candidates).
Source   vllm-project/router 0.1.17 `cache_aware`, the defaults of its command line;
         sglang-router 0.3.2 for the other fallback.

    imbalanced = max(r) - min(r) > 64  and  max(r) > 1.5 * min(r)       r = inflight_requests
    imbalanced              lowest r                       cost: requests
    best match > 0.3        longest match                  cost: prompt tokens to compute
    otherwise               the fallback of the variant    cost: requests, or tokens in its tree

match is cached_prefix_tokens / prompt_tokens. Both routers match characters of a
tree of what they sent, which knows no evictions of the engine; here the match is
what the router knows, exact where an engine publishes KV events. Ties random,
where they take the first.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, EngineId, RoutedRequest
from lodestar_router.policy.by_cost import decide_by_cost

MATCH_THRESHOLD_RATIO = 0.3  # cache_threshold
BALANCE_ABS_REQUESTS = 64  # balance_abs_threshold
BALANCE_REL = 1.5  # balance_rel_threshold
# max_tree_size of the command line, 2**25 characters, at about four per token.
MAX_TREE_TOKENS = 2**23
MAX_TREES = 65_536  # (model, engine) pairs remembered, about 10 MB; engines come and go


class CacheAware:
    """The module's rule; without a match the engine with the fewest requests."""

    name: ClassVar[str] = "cache_aware"
    reads_prompt: ClassVar[bool] = True

    def __init__(
        self,
        rng: Random,
        *,
        match_threshold_ratio: float = MATCH_THRESHOLD_RATIO,
        balance_abs_requests: int = BALANCE_ABS_REQUESTS,
        balance_rel: float = BALANCE_REL,
    ) -> None:
        self._rng = rng
        self._match_threshold_ratio = match_threshold_ratio
        self._balance_abs_requests = balance_abs_requests
        self._balance_rel = balance_rel

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        costs = self._costs(request, candidates)
        decision = decide_by_cost(self.name, candidates, costs, self._rng)
        self._sent(request, decision)
        return decision

    def _costs(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> list[float]:
        if self._imbalanced([c.engine.inflight_requests for c in candidates]):
            return _requests(candidates)
        longest = max(c.cached_prefix_tokens for c in candidates)
        if longest > self._match_threshold_ratio * request.prompt_tokens:
            return [float(request.prompt_tokens - c.cached_prefix_tokens) for c in candidates]
        return self._fallback(request, candidates)

    def _imbalanced(self, requests: Sequence[int]) -> bool:
        most, fewest = max(requests), min(requests)
        gap = most - fewest
        return gap > self._balance_abs_requests and most > self._balance_rel * fewest

    def _fallback(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> list[float]:
        return _requests(candidates)

    def _sent(self, request: RoutedRequest, decision: Decision) -> None:
        """Called after each choice."""


class CacheAwareSglang(CacheAware):
    """The module's rule; without a match the engine with the smallest tree.

    A tree grows by the prompt tokens it did not hold, and is cut back to
    MAX_TREE_TOKENS, so trees that are full tie.
    """

    name: ClassVar[str] = "cache_aware_sglang"

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self._tree_tokens: dict[tuple[str, EngineId], int] = {}  # longest unused first

    def _fallback(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> list[float]:
        sizes = self._tree_tokens
        return [float(sizes.get((request.model, c.engine.engine_id), 0)) for c in candidates]

    def _sent(self, request: RoutedRequest, decision: Decision) -> None:
        key = (request.model, decision.engine_id)
        cached_tokens = decision.candidates[decision.chosen].cached_prefix_tokens
        new_tokens = max(request.prompt_tokens - cached_tokens, 0)
        size = self._tree_tokens.pop(key, 0) + new_tokens
        self._tree_tokens[key] = min(size, MAX_TREE_TOKENS)
        if len(self._tree_tokens) > MAX_TREES:
            del self._tree_tokens[next(iter(self._tree_tokens))]


def _requests(candidates: Sequence[Candidate]) -> list[float]:
    return [float(c.engine.inflight_requests) for c in candidates]
