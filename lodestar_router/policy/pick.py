"""From costs to one candidate: the lowest, near-ties settled, now and then another.

    near-ties   cost <= lowest + max(2 %, 1 ms): no prediction can tell them apart
    equal       of those the ones with the least to compute, which costs the fleet
                least; drawn evenly, lest equal engines be filled in order
    explored    with probability `share`, drawn evenly among all that cost at most
                lowest + min(`max_extra_s`, EXPLORE_RATIO * lowest), near-ties included

    propensity of i = (1 - share) * [i equal] / |equal| + share * [i explorable] / |explorable|

A model that learns only from its own choices never finds out that it overrates an
engine. Exploring costs at most share * max_extra_s per request, in the objective's seconds.

In       costs in seconds, one per candidate; a random source.
Out      a Pick; its propensity is that of the candidate under the whole rule.
Cost     O(candidates).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from msgspec import Struct

from lodestar_router.core.types import Candidate, RoutedRequest
from lodestar_router.features.rates import own_uncached_tokens

# Closer than a prediction can tell apart: typical errors are tens of percent.
NEAR_TIE_RATIO = 0.02
NEAR_TIE_S = 0.001  # below this, timing noise of the network and the event loop rules
# Of a cost that grows as the square of TTFT: 20 % of TTFT, well within one typical error.
EXPLORE_RATIO = 0.44


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """How much may be spent on finding out."""

    share: float = 0.0  # 0..1 of requests
    max_extra_s: float = 0.05  # predicted, of one request


NO_EXPLORATION = Exploration()


class Pick(Struct, frozen=True, kw_only=True):
    """One candidate, and how likely it was."""

    chosen: int
    tied: int  # how many were equal to the best, itself included
    propensity: float
    explored: bool = False  # not one of the best: taken to find out


def near_tie_bound(lowest: float) -> float:
    """Costs up to this one are as good as the lowest."""
    return max(lowest * (1.0 + NEAR_TIE_RATIO), lowest + NEAR_TIE_S)


def pick(
    request: RoutedRequest,
    candidates: Sequence[Candidate],
    costs: Sequence[float],
    exploration: Exploration,
    rng: Random,
) -> Pick:
    """Pick by the module's rule; without exploration `rng` is asked only about ties."""
    lowest = min(costs)
    near = _within(costs, near_tie_bound(lowest))
    equal = near
    if len(near) > 1:
        uncached = [own_uncached_tokens(request, candidates[index]) for index in near]
        fewest = min(uncached)
        equal = [index for index, own in zip(near, uncached, strict=True) if own == fewest]
    share, explorable = 0.0, equal
    if exploration.share > 0.0:
        extra_s = min(exploration.max_extra_s, EXPLORE_RATIO * lowest)
        explorable = _within(costs, max(lowest + extra_s, near_tie_bound(lowest)))
        share = exploration.share if len(explorable) > 1 else 0.0
    drawn_from = explorable if share and rng.random() < share else equal
    chosen = near[0] if len(near) == 1 and drawn_from is equal else rng.choice(drawn_from)
    is_best = chosen in equal
    return Pick(
        chosen=chosen,
        tied=len(equal),
        propensity=(1.0 - share) * is_best / len(equal) + share / len(explorable),
        explored=not is_best,
    )


def _within(costs: Sequence[float], bound: float) -> list[int]:
    return [index for index, cost in enumerate(costs) if cost <= bound]
