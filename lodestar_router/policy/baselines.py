"""Policies that know nothing of prefixes: random, round robin, least request.

In       a request and its candidates; of these only identity and in-flight counts.
Out      Decision. Costs: random 0; round robin the place in line; least request a count.
Cost     O(candidates), round robin O(candidates log candidates).

Each is what other routers ship under the same name, so that ours can be
compared with them on equal terms.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, EngineId, RoutedRequest
from lodestar_router.policy.by_cost import decide_by_cost

MAX_TURNS = 65_536  # (model, engine) pairs remembered, about 10 MB; engines come and go


class RandomChoice:
    """Choose uniformly."""

    name: ClassVar[str] = "random"
    reads_prompt: ClassVar[bool] = False

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        return decide_by_cost(self.name, candidates, [0.0] * len(candidates), self._rng)


class RoundRobin:
    """Choose the engine whose last turn for this model is longest ago.

    Engines that had no turn yet come first, in order of their ids. With an
    unchanging set this is the usual rotation. A position in a list would favour
    the first engine after each change of the set; a last turn stays true while
    engines fail, return, join, or are missing from single requests. An engine
    that returns gets one turn first, not all that it missed.

    Each model rotates on its own: with one rotation for all, two models taking
    strict turns on two engines would each stay on one of them.
    """

    name: ClassVar[str] = "roundrobin"
    reads_prompt: ClassVar[bool] = False

    def __init__(self, rng: Random) -> None:
        """`rng` is not used: the order is fixed."""
        self._turns = 0
        self._last_turn: dict[tuple[str, EngineId], int] = {}  # oldest turn first

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        engine_ids = [c.engine.engine_id for c in candidates]
        model, last_turn = request.model, self._last_turn
        line = sorted(
            [(last_turn.get((model, e), 0), e, index) for index, e in enumerate(engine_ids)]
        )
        costs = [0.0] * len(candidates)
        for place, (_, _, index) in enumerate(line):
            costs[index] = float(place)
        _, engine_id, chosen = line[0]
        self._take_turn(model, engine_id)
        return Decision(
            policy=self.name,
            candidates=tuple(candidates),
            chosen=chosen,
            costs=costs,
            reason="only" if len(candidates) == 1 else "turn",
        )

    def _take_turn(self, model: str, engine_id: EngineId) -> None:
        self._turns += 1
        self._last_turn.pop((model, engine_id), None)
        self._last_turn[model, engine_id] = self._turns
        if len(self._last_turn) > MAX_TURNS:
            del self._last_turn[next(iter(self._last_turn))]


class LeastRequest:
    """Choose the engine with the fewest requests of this router in flight.

        cost(c) = inflight_requests(c)          unit: requests; ties random

    The router's own count, not the engine's: a report is one poll old, and every
    arrival in between would pick the same engine.

    Source: AIBrix `least-request`, Envoy LEAST_REQUEST over all hosts.
    """

    name: ClassVar[str] = "least_request"
    reads_prompt: ClassVar[bool] = False

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        costs = [float(c.engine.inflight_requests) for c in candidates]
        return decide_by_cost(self.name, candidates, costs, self._rng)
