"""One emulated engine in virtual time: its steps, and the reports it sends.

    step k ends ─► tokens, KV events, load report leave the engine; step k + 1 begins

Load reports are those of the stats plugin (at most one per 10 ms, one per 250 ms
while nothing happens), or those of a poll with a fixed period.

In       requests that have reached the engine.
Out      a callback at the end of every step; reports, when somebody is about to look:
         that costs less than an entry on the agenda for each, and shows the same.
"""

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from lodestar_router.core.kv_events import KvEvent
from lodestar_router.core.types import EngineId, EngineLoad
from lodestar_router.emulator.engine_model import EngineModel, StepResult
from perf.routing.agenda import Agenda
from perf.routing.cells import Delays, EngineGroup
from perf.routing.flight import Flight

# The plugin's defaults (patches/vllm-scheduler-stats).
_PLUGIN_INTERVAL_S = 0.010
_PLUGIN_HEARTBEAT_S = 0.250
# Until a new router has read what engines replay: a third of a million blocks at 3 us each.
REPLAY_S = 1.0
_PHASE = 0.618  # of the poll period from one engine to the next: polls are spread evenly

_State = tuple[int, int, float]  # running, waiting, KV usage
OnStep = Callable[["SimulatedEngine", StepResult], None]
OnReport = Callable[[EngineId, EngineLoad], None]


class KvListener(Protocol):
    """Who hears of KV events."""

    def kv_events(self, engine_id: EngineId, events: Sequence[KvEvent]) -> None: ...

    def kv_gap(self, engine_id: EngineId) -> None: ...

    def kv_whole(self, engine_id: EngineId) -> None: ...


class SimulatedEngine:
    """An engine model, and the step it is in."""

    def __init__(
        self, number: int, group: EngineGroup, agenda: Agenda, on_step: OnStep, *, kv_events: bool
    ) -> None:
        self.number = number
        self.engine_id = EngineId(f"{group.gpu}-{number}")
        self.group = group
        self.model: EngineModel = group.build(kv_events=kv_events)
        self.flights: dict[str, Flight] = {}  # in the engine, by request id
        self.step: StepResult | None = None  # under way
        self.steps = self.preemptions = 0
        self._agenda = agenda
        self._on_step = on_step

    @property
    def sends_kv_events(self) -> bool:
        """Whether there is anything to subscribe to."""
        return self.model.config.kv_events and self.model.config.prefix_caching

    def begin(self) -> None:
        """Start a step if there is work and none is under way."""
        if self.step is None:
            self._next()

    def _next(self) -> None:
        agenda = self._agenda
        step = self.step = self.model.step(agenda.now_s)
        if step is not None:
            agenda.at(step.started_at_s + step.duration_s, self._end, step)

    def _end(self, step: StepResult) -> None:
        self.steps += 1
        self.preemptions += len(step.preempted)
        self._on_step(self, step)
        self._next()


class LoadReporter:
    """Sends one engine's load to the router."""

    def __init__(
        self, engine: SimulatedEngine, agenda: Agenda, on_report: OnReport, delays: Delays
    ) -> None:
        self._engine = engine
        self._agenda = agenda
        self._on_report = on_report
        self._delay_s = delays.load_delay_s
        self._period_s = delays.load_period_s
        self._state: _State = (0, 0, 0.0)  # as of the latest step
        self._on_their_way: deque[tuple[float, _State]] = deque()  # with when they arrive
        self._sent_at_s = 0.0
        self._held = False  # a report waits until the plugin's interval has passed
        self._stopped = False
        if self._period_s is None:
            self._send()
            self._beat()
        else:
            phase_s = engine.number * _PHASE % 1.0 * self._period_s
            agenda.at(agenda.now_s + phase_s, self._poll, self._period_s)

    def stop(self) -> None:
        """The router has given the engine up."""
        self._stopped = True

    def forget(self) -> None:
        """Reports on their way go to a router that is gone."""
        self._on_their_way.clear()

    def stepped(self, step: StepResult) -> None:
        """A step has ended."""
        self._state = (step.num_running_reqs, step.num_waiting_reqs, step.kv_cache_usage_ratio)
        if self._period_s is not None or self._held:
            return
        due_s = self._sent_at_s + _PLUGIN_INTERVAL_S
        if due_s <= self._agenda.now_s:
            self._send()
        else:
            self._held = True
            self._agenda.at(due_s, self._send_held)

    def _send_held(self) -> None:
        self._held = False
        self._send()

    def _beat(self) -> None:
        """Repeat the last report if none was sent for a heartbeat."""
        agenda = self._agenda
        if self._stopped:
            return
        if agenda.now_s >= self._sent_at_s + _PLUGIN_HEARTBEAT_S:
            self._send()
        agenda.at(self._sent_at_s + _PLUGIN_HEARTBEAT_S, self._beat)

    def _poll(self, period_s: float) -> None:
        if not self._stopped:
            self._send()
            self._agenda.at(self._agenda.now_s + period_s, self._poll, period_s)

    def _send(self) -> None:
        self._sent_at_s = self._agenda.now_s
        self._on_their_way.append((self._sent_at_s + self._delay_s, self._state))

    def deliver(self) -> None:
        """Hand over the newest report that has arrived; older ones would be overwritten."""
        on_their_way, arrived = self._on_their_way, None
        while on_their_way and on_their_way[0][0] <= self._agenda.now_s:
            arrived = on_their_way.popleft()
        if arrived is None:
            return
        arrived_at_s, (running, waiting, usage) = arrived
        load = EngineLoad(
            observed_at_s=arrived_at_s,
            source="scheduler_stats" if self._period_s is None else "metrics",
            num_running_reqs=running,
            num_waiting_reqs=waiting,
            kv_cache_usage_ratio=usage,
        )
        self._on_report(self._engine.engine_id, load)


class KvReporter:
    """Sends one engine's KV events to the router, in order."""

    def __init__(
        self,
        engine: SimulatedEngine,
        agenda: Agenda,
        router: KvListener,
        delays: Delays,
        *,
        keep: bool,
    ) -> None:
        """Args:
        keep: what was sent, for `replay`.
        """
        self._engine_id = engine.engine_id
        self._agenda = agenda
        self._router = router
        self._delay_s = delays.kv_event_delay_s
        self._loss = delays.kv_event_loss
        self._rng = Random(engine.number)
        self._on_their_way: deque[tuple[float, Sequence[KvEvent]]] = deque()
        self._sent: deque[tuple[float, Sequence[KvEvent]]] | None = deque() if keep else None
        self._replaying = False
        self.lost = 0  # batches
        self._gap_told = False

    def stepped(self, step: StepResult) -> None:
        """A step with events has ended."""
        if self._loss and self._rng.random() < self._loss:
            self.lost += 1
            return
        batch = self._agenda.now_s + self._delay_s, step.events
        self._on_their_way.append(batch)
        if self._sent is not None:
            self._sent.append(batch)

    def replay(self, router: KvListener) -> None:
        """Send all of it again, to another router."""
        assert self._sent is not None
        self._router, self._replaying, self._gap_told = router, True, False
        ready_s = self._agenda.now_s + REPLAY_S
        self._on_their_way = deque((max(due_s, ready_s), events) for due_s, events in self._sent)

    def deliver(self) -> None:
        """Hand over the batches that have arrived."""
        on_their_way, now_s = self._on_their_way, self._agenda.now_s
        while on_their_way and on_their_way[0][0] <= now_s:
            if self._replaying:
                self._replaying = False
                self._router.kv_whole(self._engine_id)
            if self.lost and not self._gap_told:
                self._gap_told = True
                self._router.kv_gap(self._engine_id)
            self._router.kv_events(self._engine_id, on_their_way.popleft()[1])
