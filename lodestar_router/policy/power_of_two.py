"""Power of two choices: draw two engines, take the less busy one.

In       in-flight requests; nothing of the prompt.
Out      Decision; a cost is a number of requests, of every candidate.
Cost     O(candidates), for the propensities; the choice itself is O(1).
Source   Mitzenmacher 2001; as shipped: vllm-project/router 0.1.17 `power_of_two`.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, RoutedRequest
from lodestar_router.policy.by_cost import reason_of


class PowerOfTwo:
    """Of two different engines drawn uniformly, the one with fewer requests in flight.

        cost(c) = inflight_requests(c)          unit: requests; a tie takes the first drawn

    The shipped router prefers a load it polled over its own count, which lets
    every arrival of one poll pick the same engine; the own count is taken here.
    """

    name: ClassVar[str] = "power_of_two"
    reads_prompt: ClassVar[bool] = False

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        requests = [c.engine.inflight_requests for c in candidates]
        if len(candidates) == 1:
            chosen, tied = 0, False
        else:
            first, second = self._rng.sample(range(len(candidates)), 2)
            chosen = first if requests[first] <= requests[second] else second
            tied = requests[first] == requests[second]
        return Decision(
            policy=self.name,
            candidates=tuple(candidates),
            chosen=chosen,
            costs=[float(count) for count in requests],
            reason="tie" if tied else reason_of(candidates, chosen),
            propensity=_propensity(requests, chosen),
        )


def _propensity(requests: Sequence[int], chosen: int) -> float:
    """Share of all ordered pairs in which `chosen` wins."""
    others = len(requests) - 1
    if not others:
        return 1.0
    own = requests[chosen]
    busier = sum(count > own for count in requests)
    equal = requests.count(own) - 1
    return (2 * busier + equal) / (others * (others + 1))
