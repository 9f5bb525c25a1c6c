"""What one cell of the benchmark is: a fleet, its load, and what happens to them.

    arrivals from 0 to duration_s; requests that arrive before warmup_s are not
    measured; then nothing arrives any more and the fleet works off what it has

Everything is a frozen value, so that a cell's repr tells it apart from any other.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from lodestar_router.emulator.build import DEFAULT_MODEL, EngineSettings
from lodestar_router.emulator.config import SchedulerKind
from lodestar_router.emulator.engine_model import EngineModel
from lodestar_router.errors import ConfigError
from perf.routing.profile_changes import build_changed
from perf.routing.workloads.base import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineGroup:
    """Engines of one kind; None stands for the default of the GPU kind or of vLLM."""

    gpu: str
    count: int = 1
    model: str = DEFAULT_MODEL
    prefix_caching: bool | None = None
    scheduler: SchedulerKind | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    max_model_len: int | None = None
    kv_blocks: int | None = None
    eager: bool = False
    slowdown: float = 1.0
    profile: tuple[tuple[str, float], ...] = ()  # see profile_changes.py

    def build(self, *, kv_events: bool) -> EngineModel:
        """One empty engine of the group.

        Raises:
            ConfigError: there is no such GPU or model, or the limits contradict each other.
        """
        settings = EngineSettings(
            gpu=self.gpu,
            model=self.model,
            scheduler=self.scheduler,
            prefix_caching=self.prefix_caching,
            max_num_batched_tokens=self.max_num_batched_tokens,
            max_num_seqs=self.max_num_seqs,
            max_model_len=self.max_model_len,
            kv_blocks=self.kv_blocks,
            eager=self.eager,
            slowdown=self.slowdown,
            kv_events=kv_events,
            kv_event_tokens=False,
        )
        return build_changed(settings, dict(self.profile))


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """How late the router and its clients learn of things, in seconds; what they never do."""

    tokenize_s: float = 0.002  # arrival to decision, for policies that read the prompt
    network_s: float = 0.0005  # one way between router and engine
    engine_overhead_s: float = 0.010  # HTTP and tokenizing in the engine, before its queue
    kv_events: bool = True  # false: the router guesses what engines cache
    kv_event_delay_s: float = 0.005  # end of the step to the router's index
    kv_event_loss: float = 0.0  # share of batches that never arrive, nor are replayed
    load_delay_s: float = 0.050  # end of the step to the router's fleet view
    load_period_s: float | None = None  # None: as the stats plugin, else polls this far apart
    training_s: float = 0.5  # start of a training round to the new model in use

    @property
    def transit_s(self) -> float:
        """From a decision to the engine's queue."""
        return self.network_s + self.engine_overhead_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """An engine's steps take `factor` times as long from now on."""

    engine: int
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something changes at `at_s`; several things may."""

    at_s: float
    scale_to: int | None = None  # this many engines take requests
    slow: Slow | None = None
    workload: Workload | None = None
    requests_per_s: float | None = None
    load: float | None = None  # the same as a fraction of the knee


class Restart(StrEnum):
    """What a router finds in its state directory that takes the place of another."""

    SAVED = "saved"  # the state directory of one that was asked to end
    CRASH = "crash"  # that of one that was killed: what it saves now and then
    EMPTY = "empty"  # nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterRestart(Event):
    """Another router takes over, with policy, fleet, index, hold and trainer of its own.

    What engines have goes on, and nobody tells the new router: it sees their load reports
    and replayed KV events, and has counted nothing as sent. Requests that were held are
    asked again; their TTFT counts from the first time.
    """

    restart: Restart


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell; either `requests_per_s` or `load` is set."""

    name: str
    engines: tuple[EngineGroup, ...]
    workload: Workload
    requests_per_s: float | None = None
    load: float | None = None  # fraction of the knee, see knee.py
    duration_s: float = 300.0
    warmup_s: float = 60.0
    events: tuple[Event, ...] = ()
    delays: Delays = field(default_factory=Delays)

    def __post_init__(self) -> None:
        if (self.requests_per_s is None) == (self.load is None):
            raise ConfigError(f"cell '{self.name}': give either 'requests_per_s' or 'load'")
        if self.warmup_s >= self.duration_s:
            raise ConfigError(f"cell '{self.name}': 'warmup_s' must be below 'duration_s'")
        models = {group.model for group in self.engines}
        if len(models) != 1:
            raise ConfigError(f"cell '{self.name}': engines must serve one model, not {models}")
        fleet = max([len(self.fleet), *(event.scale_to or 0 for event in self.events)])
        for event in self.events:
            if event.slow is not None and event.slow.engine >= fleet:
                raise ConfigError(
                    f"cell '{self.name}': there is no engine {event.slow.engine} to slow; "
                    f"they count from 0 to {fleet - 1}"
                )

    @property
    def fleet(self) -> list[EngineGroup]:
        """The group of every engine, in order."""
        return [group for group in self.engines for _ in range(group.count)]

    @property
    def model(self) -> str:
        """The one model."""
        return self.engines[0].model

    @property
    def needs_knee(self) -> bool:
        """Whether some load is given as a fraction."""
        return self.load is not None or any(event.load is not None for event in self.events)

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that change with the cell."""
        return sha256(repr(self).encode()).hexdigest()[:8]
