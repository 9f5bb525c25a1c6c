"""One policy, one cell, one seed: the router in front of emulated engines.

    arrival ─ tokenize ─► decision ─ network, engine overhead ─► engine queue ─ steps ─►
    token ─ network ─► router: label, counts; KV events and load reports in their time

In       a cell, its plan, a policy.
Out      flights, one per request, in order of arrival.
Cost     about 0.3 ms per request and 20 us per engine step.
Errors   none: a request no engine can take is marked rejected. `run` stops at
         DRAIN_S past the last arrival; flights still open then have no end.

For policies (see catalog.py): now_s, transit_s, engine_model, step_ends_s, on_their_way,
prompt_token_ids, prompt, on_label, call_at. They tell the truth, which no router knows.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from lodestar_router.core.block_keys import TokenArray
from lodestar_router.core.blocks import Prompt
from lodestar_router.core.hold import USUAL, HoldQueue, HoldSettings
from lodestar_router.core.types import EngineId
from lodestar_router.emulator.engine_model import EngineModel
from lodestar_router.emulator.sequence import EmulatedRequest
from lodestar_router.errors import NoCandidateError
from lodestar_router.features.row import TrainingRow
from lodestar_router.policy.base import Policy
from lodestar_router.policy.staged import learned_in
from perf.routing.agenda import Agenda
from perf.routing.cells import Cell, Delays, Event, Restart, RouterRestart
from perf.routing.fleet import SimulatedFleet
from perf.routing.flight import Flight
from perf.routing.holding import VirtualHold
from perf.routing.learner import VirtualTrainer
from perf.routing.router import OnLabel, RouterCore
from perf.routing.workloads.base import Ask

DRAIN_S = 3600.0  # a fleet that has not caught up an hour later never will
TRAINER_STARTS_S = 4.0  # torch takes so long to load, at its niceness


class Simulation:
    """See the module; `run` is called once."""

    def __init__(
        self,
        cell: Cell,
        plan: Sequence[Ask],
        policy: Policy,
        seed: int,
        anew: Callable[[], Policy] | None = None,
    ) -> None:
        """`anew` makes the policy of a router that takes over, where the cell has one do so."""
        seen: Callable[[Delays], Delays] | None = getattr(policy, "sees", None)
        if seen is not None:
            cell = replace(cell, delays=seen(cell.delays))
        self._cell = cell
        self._plan = plan
        self._seed = seed
        self._anew = anew
        self._reads_prompt = policy.reads_prompt
        self._agenda = Agenda()
        self._state_dir: Path | None = None
        if any(isinstance(event, RouterRestart) for event in cell.events):
            self._state_dir = Path(mkdtemp())  # until `run` is over
        self._coming = len(plan)  # arrivals that are certain
        self._open: dict[str, Flight] = {}
        self.flights: list[Flight] = []
        self.trainer: VirtualTrainer | None = None
        queue = self._start_router(policy)
        listens = cell.delays.kv_events and policy.reads_prompt
        self.fleet = SimulatedFleet(cell, self._agenda, self.router, self._ended, kv_events=listens)
        self._serve(queue)

    def _start_router(self, policy: Policy, trainer_starts_s: float = 0.0) -> HoldQueue | None:
        """A router that goes on from the state directory, and its hold; it knows no engine."""
        cell, agenda, learned = self._cell, self._agenda, learned_in(policy)
        usual = None if learned is None else USUAL
        settings: HoldSettings | None = getattr(policy, "hold", usual)
        queue = None if settings is None else HoldQueue(settings)
        self.router = RouterCore(
            policy, model=cell.model, clock=agenda.clock, offer=self._offer, hold=queue
        )
        if learned is not None:
            self.trainer = VirtualTrainer(
                learned,
                self.router.tracker,
                self._seed,
                agenda,
                training_s=cell.delays.training_s,
                state_dir=self._state_dir,
                starts_s=trainer_starts_s,
            )
        return queue

    def _serve(self, queue: HoldQueue | None) -> None:
        """The router knows its engines."""
        self.hold: VirtualHold | None = None
        if queue is not None:
            self.hold = VirtualHold(queue, self.router, self.fleet, self._agenda)
            self.router.on_over = self.hold.over
        attach = getattr(self.router.policy, "attach", None)
        if attach is not None:
            attach(self)

    # ---- for policies ----

    @property
    def now_s(self) -> float:
        """Virtual time."""
        return self._agenda.now_s

    @property
    def transit_s(self) -> float:
        """From a decision to the engine's queue."""
        return self._cell.delays.transit_s

    def engine_model(self, engine_id: EngineId) -> EngineModel:
        """The engine itself, as it will be at the end of the step under way."""
        return self.fleet[engine_id].model

    def step_ends_s(self, engine_id: EngineId) -> float | None:
        """When the step under way ends; None if the engine is idle."""
        step = self.fleet[engine_id].step
        return None if step is None else step.ended_at_s

    def on_their_way(self, engine_id: EngineId) -> list[EmulatedRequest]:
        """Requests sent to the engine that have not reached its queue, first sent first."""
        engine = self.fleet[engine_id]
        return [
            self.fleet.emulated(flight, engine)
            for flight in self._open.values()
            if flight.engine == engine.number and flight.sequence is None and not flight.rejected
        ]

    def prompt_token_ids(self, request_id: str) -> TokenArray:
        """The prompt of a request that has not ended."""
        return self._open[request_id].ask.token_ids

    def prompt(self, request_id: str) -> Prompt:
        """The same, with the names of its blocks that engines use."""
        return self._open[request_id].ask.prompt

    def on_label(self, callback: OnLabel) -> None:
        """Call back at every first token (ending None) and at every end."""
        self.router.on_label.append(callback)

    def call_at(self, due_s: float, act: Callable[..., None], *args: Any) -> None:
        """Call back at a virtual time, for work that takes its time, such as training."""
        self._agenda.at(due_s, act, *args)

    # ---- the run ----

    def run(self) -> None:
        """From the first arrival to the last end."""
        for event in self._cell.events:
            self._agenda.at(event.at_s, self._happen, event)
        try:
            if self._plan:
                self._agenda.at(self._plan[0].at_s, self._arrive_planned, 0)
                self._agenda.run(self._cell.duration_s + DRAIN_S)
        finally:
            if self._state_dir is not None:
                rmtree(self._state_dir, ignore_errors=True)

    def stop(self) -> None:
        """Leave `run` after what is happening now."""
        self._agenda.stop()

    def _happen(self, event: Event) -> None:
        """Rates and workloads are in the plan already."""
        if event.scale_to is not None:
            self.fleet.scale_to(event.scale_to)
        if event.slow is not None:
            self.fleet.slow(event.slow)
        if isinstance(event, RouterRestart):
            self._restart(event.restart)

    def _restart(self, restart: Restart) -> None:
        """Another router takes over; see RouterRestart."""
        assert self._anew is not None, "nobody said how to make another policy"
        assert self._state_dir is not None
        held = [] if self.hold is None else self.hold.abandon()
        for flight in self._open.values():
            flight.disown()
        if self.trainer is not None:
            self.trainer.end(save=restart is not Restart.CRASH)
        if restart is Restart.EMPTY:
            for path in self._state_dir.iterdir():
                path.unlink()
        queue = self._start_router(self._anew(), TRAINER_STARTS_S)
        self.fleet.follow(self.router)
        self._serve(queue)
        for flight in held:
            self._ask(flight)

    def _arrive_planned(self, index: int) -> None:
        following = index + 1
        if following < len(self._plan):
            self._agenda.at(self._plan[following].at_s, self._arrive_planned, following)
        self._arrive(self._plan[index])

    def _arrive(self, ask: Ask) -> None:
        """A request reaches the router."""
        self._coming -= 1
        flight = Flight(ask, self._agenda.now_s)
        self.flights.append(flight)
        self._open[flight.request_id] = flight
        self._ask(flight)

    def _ask(self, flight: Flight) -> None:
        """Only a policy that reads prompts has them tokenized."""
        if self._reads_prompt:
            flight.prompt = flight.ask.prompt
            ready_s = self._agenda.now_s + self._cell.delays.tokenize_s
            self._agenda.at(ready_s, self._decide, flight)
        else:
            self._decide(flight)

    def _decide(self, flight: Flight) -> None:
        self.fleet.deliver_reports()
        try:
            decision = self.router.decide(flight)
        except NoCandidateError:
            flight.rejected = True
            self._ended(flight)
            return
        if self.hold is None:
            self.fleet.send(flight, decision.engine_id)
        else:
            self.hold.enter(flight)

    def _ended(self, flight: Flight) -> None:
        """The client has its answer; in a session it thinks, and asks again."""
        del self._open[flight.request_id]
        ask = flight.ask.then
        if ask is not None and not flight.rejected:
            next_s = self._agenda.now_s + ask.think_s
            if next_s < self._cell.duration_s:
                self._coming += 1
                self._agenda.at(next_s, self._arrive, ask)
        if not self._open and not self._coming:
            self._agenda.stop()

    def _offer(self, row: TrainingRow) -> None:
        if self.trainer is not None:
            self.trainer.offer(row)
