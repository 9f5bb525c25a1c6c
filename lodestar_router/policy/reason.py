"""Which consideration decided a choice of the learned policy, in one word.

    only         there was one candidate
    exploration  drawn among near-ties to learn from it, not one of the best
    tie          several were equal, the random source chose among them
    fallback     the model there is, not trusted, would have gone elsewhere
    objective    price and TTFT alone would have gone elsewhere
    price        its own TTFT alone would have gone elsewhere
    affinity, load, both, compromise       none of these: see by_cost.py

Each word names the last consideration without which the choice would have been
another; the first that applies, from above, is given.
"""

from collections.abc import Sequence

from lodestar_router.core.types import Candidate
from lodestar_router.policy.by_cost import reason_of
from lodestar_router.policy.pick import Pick, near_tie_bound


def reason(
    candidates: Sequence[Candidate],
    pick: Pick,
    *,
    own_s: Sequence[float],
    prices_s: Sequence[float],
    distrusted_s: Sequence[float] | None,
) -> str:
    """The word.

    Args:
        own_s: predicted TTFT of each candidate.
        distrusted_s: the same by the model that is not trusted; None without one.
    """
    chosen = pick.chosen
    if len(candidates) == 1:
        return "only"
    if pick.explored:
        return "exploration"
    if pick.tied > 1:
        return "tie"
    if distrusted_s is not None and _elsewhere(_sums(distrusted_s, prices_s), chosen):
        return "fallback"
    if _elsewhere(_sums(own_s, prices_s), chosen):
        return "objective"
    if _elsewhere(own_s, chosen):
        return "price"
    return reason_of(candidates, chosen)


def _sums(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x + y for x, y in zip(a, b, strict=True)]


def _elsewhere(costs: Sequence[float], chosen: int) -> bool:
    """Whether these costs would have led to another candidate."""
    return costs[chosen] > near_tie_bound(min(costs))
