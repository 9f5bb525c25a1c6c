"""Late binding in virtual time: as proxy.holding, with the agenda in place of timers."""

from lodestar_router.core.held import Held
from lodestar_router.core.hold import HoldQueue
from lodestar_router.core.types import EngineId
from perf.routing.agenda import Agenda
from perf.routing.fleet import SimulatedFleet
from perf.routing.flight import Flight
from perf.routing.router import RouterCore


class VirtualHold:
    """Requests that wait at the router of one run."""

    def __init__(
        self, queue: HoldQueue, router: RouterCore, fleet: SimulatedFleet, agenda: Agenda
    ) -> None:
        self._queue = queue
        self._router = router
        self._fleet = fleet
        self._agenda = agenda
        self._waiting: dict[int, Flight] = {}
        self._looked_at_s: dict[EngineId, float] = {}  # when the agenda has the next look
        self.held = 0
        self.moved = 0

    def enter(self, flight: Flight) -> None:
        """A flight was decided: send it, or keep it."""
        decision, routed = flight.decision, flight.routed
        assert decision is not None
        assert routed is not None
        if decision.work_s is None:
            self._fleet.send(flight, decision.engine_id)
            return
        now_s, engine_id = self._agenda.now_s, decision.engine_id
        size = decision.candidates[decision.chosen].engine.block_size_tokens
        held = Held(
            number=flight.ask.number,
            arrived_at_s=flight.decided_first_s,
            work_s=decision.work_s[decision.chosen],
            uncached_tokens=max(routed.prompt_tokens - flight.expected_cached_tokens, 1),
            client=routed.session_id,
            keys=flight.prompt.keys(size)[0] if flight.prompt is not None and size else (),
            cached_blocks=flight.expected_cached_tokens // size if size else 0,
        )
        if self._queue.enter(engine_id, held, now_s, at_once=False):
            self._fleet.send(flight, engine_id)
            return
        if flight.decided_first_s == now_s:
            self.held += 1
        self._waiting[held.number] = flight
        self._look_later(engine_id)

    def abandon(self) -> list[Flight]:
        """The router is gone: those who waited at it, in order of arrival."""
        waiting, self._waiting = list(self._waiting.values()), {}
        self._queue = HoldQueue(self._queue.settings)
        return waiting

    def over(self, flight: Flight) -> None:
        """The flight's first token has come, or it has ended."""
        assert flight.decision is not None
        engine_id = flight.decision.engine_id
        self._queue.over(flight.ask.number, self._agenda.now_s)
        self._give_turn(engine_id)

    def _look(self, engine_id: EngineId) -> None:
        self._looked_at_s.pop(engine_id, None)
        self._give_turn(engine_id)

    def _give_turn(self, engine_id: EngineId) -> None:
        self._offer(engine_id)
        for number in self._queue.due(engine_id, self._agenda.now_s):
            self._fleet.send(self._waiting.pop(number), engine_id)
        self._look_later(engine_id)

    def _offer(self, engine_id: EngineId) -> None:
        """Decide anew for one who waits for another engine and prefers this one now."""
        numbers = self._queue.movable(engine_id, self._agenda.now_s)
        if numbers:
            self._fleet.deliver_reports()
        for number in numbers:
            flight = self._waiting[number]
            assert flight.decision is not None
            if self._router.would_move(flight, engine_id):
                del self._waiting[number]
                left = flight.decision.engine_id
                self._queue.over(number, self._agenda.now_s)
                self._router.withdraw(flight)
                self._router.decide(flight)
                self.moved += 1
                self.enter(flight)
                self._look_later(left)
                return

    def _look_later(self, engine_id: EngineId) -> None:
        due_s = max(self._queue.due_at_s(engine_id), self._agenda.now_s)
        if due_s < self._looked_at_s.get(engine_id, float("inf")):
            self._looked_at_s[engine_id] = due_s
            self._agenda.at(due_s, self._look, engine_id)
