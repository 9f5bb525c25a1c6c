"""Prefix affinity with two guards against overload: AIBrix's `prefix-cache`.

In       prompt tokens, cached prefix, in-flight requests.
Out      Decision; a cost is the place in the order of preference, 0 first.
Cost     O(candidates log candidates).
Source   vllm-project/aibrix pkg/plugins/gateway/algorithms/prefix_cache.go at e3e10f9.
"""

from collections.abc import Sequence
from math import sqrt
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, RoutedRequest
from lodestar_router.policy.by_cost import decide_by_cost

# The defaults of the code; its documentation and deployments use 16 and 2.
IMBALANCE_REQUESTS = 8  # A
DEVIATION_FACTOR = 1.0  # F


class PrefixCacheAndLoad:
    """Choose the best match that is not overloaded, else the least loaded.

        r        = inflight_requests(c); mean and population deviation over all candidates
        match    = cached_prefix_tokens(c) in whole percent of the prompt
        eligible = cached_prefix_tokens(c) > 0 and r <= mean(r) + F * std(r)
                   and, when max(r) - min(r) > A, r = min(r)

    Among eligible engines the highest match wins, then the lowest r; without any,
    the lowest r of all. Ties random.
    """

    name: ClassVar[str] = "prefix_cache_and_load"
    reads_prompt: ClassVar[bool] = True

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        ceiling = _most_requests_of_a_match([c.engine.inflight_requests for c in candidates])
        preferences = [_preference(request, c, ceiling) for c in candidates]
        places = {p: float(place) for place, p in enumerate(sorted(set(preferences)))}
        costs = [places[preference] for preference in preferences]
        return decide_by_cost(self.name, candidates, costs, self._rng)


def _most_requests_of_a_match(inflight_requests: Sequence[int]) -> float:
    """The load above which a match no longer counts."""
    lowest = min(inflight_requests)
    if max(inflight_requests) - lowest > IMBALANCE_REQUESTS:
        return float(lowest)
    mean = sum(inflight_requests) / len(inflight_requests)
    variance = sum((r - mean) ** 2 for r in inflight_requests) / len(inflight_requests)
    return mean + DEVIATION_FACTOR * sqrt(variance)


def _preference(
    request: RoutedRequest, candidate: Candidate, ceiling: float
) -> tuple[bool, int, int]:
    """Sorts the preferred engine first: eligible matches, then all others by load."""
    inflight_requests = candidate.engine.inflight_requests
    if candidate.cached_prefix_tokens > 0 and inflight_requests <= ceiling:
        match_percent = candidate.cached_prefix_tokens * 100 // request.prompt_tokens
        return (False, -match_percent, inflight_requests)
    return (True, 0, inflight_requests)
