"""The emulated engines of a run, and what passes between them and the router.

    request ─ network + engine overhead ─► queue
    end of a step ─ network ─► first tokens, ends; ─ delays ─► KV events, load report

In       decided flights; the cell's events.
Out      first_token and end of the router core, kv_events, load.

Engines are numbered as they join. Scaling down retires the latest ones: they
finish what they have. Scaling up always starts new ones, with empty caches.
"""

from collections.abc import Callable

from lodestar_router.core.block_keys import chain_keys
from lodestar_router.core.types import Ending, EngineId, EngineLoad
from lodestar_router.emulator.engine_model import StepResult
from lodestar_router.emulator.sequence import EmulatedRequest
from lodestar_router.errors import RequestError
from perf.routing.agenda import Agenda
from perf.routing.cells import Cell, RouterRestart, Slow
from perf.routing.engine import KvReporter, LoadReporter, SimulatedEngine
from perf.routing.flight import Flight
from perf.routing.router import RouterCore
from perf.routing.short_keys import OwnKeys, ShortPrompt


class SimulatedFleet:
    """All engines that ever took part."""

    def __init__(
        self,
        cell: Cell,
        agenda: Agenda,
        router: RouterCore,
        on_end: Callable[[Flight], None],
        *,
        kv_events: bool,
    ) -> None:
        """`kv_events` is false when nobody would listen, which saves making them."""
        self._groups = cell.fleet
        self._delays = cell.delays
        self._agenda = agenda
        self._router = router
        self._on_end = on_end
        self._kv_events = kv_events
        self._keeps = any(isinstance(event, RouterRestart) for event in cell.events)
        self._own_keys = OwnKeys()
        self.engines: list[SimulatedEngine] = []
        self._by_id: dict[EngineId, SimulatedEngine] = {}
        self._reporters: list[LoadReporter] = []
        self._kv_reporters: list[KvReporter] = []
        self._active: list[SimulatedEngine] = []
        self.scale_to(len(self._groups))

    def __getitem__(self, engine_id: EngineId) -> SimulatedEngine:
        return self._by_id[engine_id]

    def scale_to(self, count: int) -> None:
        """Let `count` engines take requests; new ones are as those the cell lists, in turn."""
        while len(self._active) > count:
            engine = self._active.pop()
            self._router.fleet.mark_down(engine.engine_id, "scaled down", self._agenda.now_s)
            self._reporters[engine.number].stop()
        while len(self._active) < count:
            self._active.append(self._start())

    def _start(self) -> SimulatedEngine:
        number = len(self.engines)
        group = self._groups[number % len(self._groups)]
        engine = SimulatedEngine(
            number, group, self._agenda, self._stepped, kv_events=self._kv_events
        )
        self.engines.append(engine)
        self._by_id[engine.engine_id] = engine
        self._introduce(engine, kv_events=engine.sends_kv_events)
        self._reporters.append(LoadReporter(engine, self._agenda, self._load, self._delays))
        self._kv_reporters.append(
            KvReporter(engine, self._agenda, self._router, self._delays, keep=self._keeps)
        )
        return engine

    def _introduce(self, engine: SimulatedEngine, *, kv_events: bool) -> None:
        config = engine.model.config
        self._router.add_engine(engine.engine_id, engine.group.gpu, config, kv_events=kv_events)

    def _load(self, engine_id: EngineId, load: EngineLoad) -> None:
        self._router.load(engine_id, load)

    def follow(self, router: RouterCore) -> None:
        """Another router is there; it has to be told everything."""
        self._router = router
        for engine in self._active:
            self._introduce(engine, kv_events=False)
        for reporter in self._reporters:
            reporter.forget()
        for kv_reporter in self._kv_reporters:
            kv_reporter.replay(router)

    def deliver_reports(self) -> None:
        """Hand the router what it has been sent by now, before it looks."""
        for reporter in self._reporters:
            reporter.deliver()
        for kv_reporter in self._kv_reporters:
            kv_reporter.deliver()

    def slow(self, slow: Slow) -> None:
        """Change an engine's speed from its next step on."""
        engine = self.engines[slow.engine]
        engine.model.slowdown = engine.group.slowdown * slow.factor

    def send(self, flight: Flight, engine_id: EngineId) -> None:
        """The router sends a request."""
        engine = self._by_id[engine_id]
        flight.engine = engine.number
        delays = self._delays
        reaches_s = self._agenda.now_s + delays.network_s + delays.engine_overhead_s
        self._agenda.at(reaches_s, self._reach, engine, flight)

    def _reach(self, engine: SimulatedEngine, flight: Flight) -> None:
        try:
            flight.sequence = engine.model.add(self.emulated(flight, engine))
        except RequestError:
            flight.rejected = True
            self._agenda.at(self._agenda.now_s + self._delays.network_s, self._reject, flight)
            return
        engine.flights[flight.request_id] = flight
        engine.begin()

    def _reject(self, flight: Flight) -> None:
        self._router.end(flight, Ending.REJECTED)
        self._on_end(flight)

    def _stepped(self, engine: SimulatedEngine, step: StepResult) -> None:
        """Everything that leaves an engine at the end of a step."""
        agenda, delays, flights = self._agenda, self._delays, engine.flights
        now_s = agenda.now_s
        for sequence in step.first:
            first_s = now_s + delays.network_s
            agenda.at(first_s, self._router.first_token, flights[sequence.request_id])
        for sequence in step.finished:
            agenda.at(now_s + delays.network_s, self._finish, flights.pop(sequence.request_id))
        if step.events:
            self._kv_reporters[engine.number].stepped(step)
        self._reporters[engine.number].stepped(step)

    def _finish(self, flight: Flight) -> None:
        assert flight.sequence is not None
        flight.cached_tokens = flight.sequence.cached_tokens
        self._kv_reporters[flight.engine].deliver()  # blocks given back are held against them
        self._router.end(flight, Ending.COMPLETED)
        self._on_end(flight)

    def emulated(self, flight: Flight, engine: SimulatedEngine) -> EmulatedRequest:
        """The request as the engine gets it now, its blocks under the names the plan gives them."""
        ask, config = flight.ask, engine.model.config
        prompt = ask.prompt
        return EmulatedRequest(
            request_id=flight.request_id,
            token_ids=ask.token_ids,
            max_tokens=ask.output_tokens,
            arrived_at_s=self._agenda.now_s,
            answer_seed=ask.answer_seed,
            block_keys=prompt.keys(config.block_size_tokens)[0] if config.prefix_caching else None,
            chain=prompt.short.chain if isinstance(prompt, ShortPrompt) else chain_keys,
            own_keys=self._own_keys if ask.then is None else None,
        )
