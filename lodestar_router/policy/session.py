"""Keep a session at one engine, whatever the load: production-stack's `session`.

In       the request's session; in-flight requests where it has none.
Out      Decision; costs are 0 for the session's engine and 1 for others, or requests.
Cost     that of hash_ring.py.
Source   vllm-project/production-stack src/vllm_router/routers/routing_logic.py at a6c01db.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, RoutedRequest
from lodestar_router.policy.by_cost import decide_by_cost
from lodestar_router.policy.hash_ring import HashRing


class Session:
    """Choose the session's engine on a ring; without a session, the fewest requests in flight.

    production-stack then takes the lowest request rate of the last minute. When its engine
    cannot take a request, a session's next one on the ring does, until it is back.
    """

    name: ClassVar[str] = "session"
    reads_prompt: ClassVar[bool] = False

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._ring = HashRing()

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        return by_session(self.name, request, candidates, self._ring, self._rng)


def by_session(
    policy: str,
    request: RoutedRequest,
    candidates: Sequence[Candidate],
    ring: HashRing,
    rng: Random,
) -> Decision:
    """The choice of `Session`."""
    if request.session_id is None:
        costs = [float(c.engine.inflight_requests) for c in candidates]
        return decide_by_cost(policy, candidates, costs, rng)
    engine_ids = [c.engine.engine_id for c in candidates]
    chosen = engine_ids.index(ring.engine_of(request.session_id, engine_ids))
    costs = [1.0] * len(candidates)
    costs[chosen] = 0.0
    return Decision(
        policy=policy,
        candidates=tuple(candidates),
        chosen=chosen,
        costs=costs,
        reason="only" if len(candidates) == 1 else "session",
    )
