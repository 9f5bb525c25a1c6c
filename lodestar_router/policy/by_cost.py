"""The decision of any policy that takes the lowest of its costs.

In       candidates and one finite cost each, in the same order.
Out      Decision; its reason is one of the words below.
Cost     O(candidates).

    only        there was one candidate
    tie         several costs were equal, the random source chose among them
    both        the most cached prompt tokens, and the fewest requests
    affinity    the most cached prompt tokens, though another has fewer requests
    load        the fewest requests, though another may have more cached
    compromise  neither
"""

from collections.abc import Sequence
from random import Random

from lodestar_router.core.types import Candidate, Decision
from lodestar_router.policy.base import index_of_lowest


def decide_by_cost(
    policy: str, candidates: Sequence[Candidate], costs: Sequence[float], rng: Random
) -> Decision:
    """Take the lowest cost; equal ones are equally likely."""
    chosen, tied = index_of_lowest(costs, rng)
    return Decision(
        policy=policy,
        candidates=tuple(candidates),
        chosen=chosen,
        costs=costs,
        reason="tie" if tied > 1 else reason_of(candidates, chosen),
        propensity=1.0 / tied,
    )


def reason_of(candidates: Sequence[Candidate], chosen: int) -> str:
    """Which consideration a choice that was no tie agrees with."""
    if len(candidates) == 1:
        return "only"
    own = candidates[chosen]
    least_loaded = own.engine.inflight_requests == min(
        c.engine.inflight_requests for c in candidates
    )
    most_cached = own.cached_prefix_tokens > 0 and own.cached_prefix_tokens == max(
        c.cached_prefix_tokens for c in candidates
    )
    if most_cached:
        return "both" if least_loaded else "affinity"
    return "load" if least_loaded else "compromise"
