"""The engines that the router runs with now, kept equal to what discovery tells.

    told, not running       registered, watched, probed at once
    running, not told       forgotten for new requests; running streams end in their time
    told with another uid   another engine at the same address: both of the above
    told differently        updated in place; its views, counts and streams stay

In       apply(engines): the whole set that there should be.
Out      fleet, prefix index, connection pools and watches, which it alone adds to.
Cost     O(engines) per call; what must be waited for are tasks of our own that end.
Errors   none but at the start: first_probes().
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence

from lodestar_router.core.fleet import Fleet
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import EngineId, EngineSpec
from lodestar_router.discovery.base import Discovered
from lodestar_router.engines.api import EngineApi
from lodestar_router.engines.watch import SLEEP, EngineWatch
from lodestar_router.errors import ConfigError
from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.model_identity import ModelIdentity
from lodestar_router.proxy.deadlines import SWEEP_S
from lodestar_router.proxy.engine_pool import EnginePool
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.tasks import cancel, spawn

_logger = logging.getLogger(__name__)

_FIRST_PROBES_S = 3.0  # then the router serves with the engines that have answered
_END_S = 5.0  # closing a few sockets
DISCOVERY = "discovery"  # who holds an engine that is not ready


class EngineSet:
    """Adds, changes and removes engines of a running router.

    Args:
        make_api, make_watch, make_pool: how the parts of one engine are made.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        index: PrefixIndex,
        tracker: ResidualTracker,
        identity: ModelIdentity,
        metrics: Metrics,
        make_api: Callable[[EngineSpec], EngineApi],
        make_watch: Callable[[EngineApi, EnginePool], EngineWatch],
        make_pool: Callable[[EngineSpec], EnginePool],
    ) -> None:
        self._fleet = fleet
        self._index = index
        self._tracker = tracker
        self._identity = identity
        self._metrics = metrics
        self._make_api = make_api
        self._make_watch = make_watch
        self._make_pool = make_pool
        self._running: dict[EngineId, Discovered] = {}
        self._tasks: dict[EngineId, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self.watches: dict[EngineId, EngineWatch] = {}
        self.pools: dict[EngineId, EnginePool] = {}

    async def apply(self, told: Sequence[Discovered]) -> None:
        """Make the running engines those that were told."""
        wanted = {engine.spec.engine_id: engine for engine in told}
        gone = [
            engine_id
            for engine_id, running in self._running.items()
            if not _same_engine(running, wanted.get(engine_id))
        ]
        ended = [self._remove(engine_id) for engine_id in gone]
        # Nothing of an engine's feeds may come after its successor at the address is added.
        try:
            async with asyncio.timeout(_END_S):
                await cancel(*ended)
        except TimeoutError:
            _logger.warning("the watches of engines that left have not ended: %s", gone)
        for engine_id, engine in wanted.items():
            before = self._running.get(engine_id)
            if before is None:
                self._add(engine)
            elif before != engine:
                self._update(before, engine)
        for engine_id in list(self._identity.conflicts):
            self.kick(engine_id)  # the other side of the conflict may just have left

    async def first_probes(self, told: asyncio.Event, named: Collection[EngineId]) -> None:
        """Give every engine that may take requests the chance to answer once.

        Args:
            told: set when the engines are known.
            named: those that the operator named: there is somebody to read what is wrong.

        Raises:
            ConfigError: named engines contradict each other.
        """
        try:
            async with asyncio.timeout(_FIRST_PROBES_S):
                await told.wait()
                held = {state.spec.engine_id for state in self._fleet if state.holds}
                asked = [watch for engine, watch in self.watches.items() if engine not in held]
                await asyncio.gather(*(watch.probed.wait() for watch in asked))
        except TimeoutError:
            _logger.warning("not all engines have answered yet; serving with those that have")
        for engine_id, conflict in self._identity.conflicts.items():
            if engine_id in named:
                raise ConfigError(conflict)

    def hangs(self, pool: EnginePool, for_s: float, now_s: float) -> None:
        """Streams wait at an engine that sends no token to anybody."""
        engine_id = pool.spec.engine_id
        reason = f"no token for {for_s:g} s while streams wait"
        _logger.warning("engine %s: %s", engine_id, reason)
        if self.pools.get(engine_id) is not pool:  # it left, and these were its last
            pool.give_up_waiting(reason)
            return
        self._fleet[engine_id].circuit.trip(reason, now_s)
        self._metrics.engine_failed(engine_id, "hang")
        self.kick(engine_id)

    def kick(self, engine_id: EngineId) -> None:
        """A request had trouble with the engine; nothing happens if it has left."""
        if (watch := self.watches.get(engine_id)) is not None:
            watch.kick()

    def _add(self, engine: Discovered) -> None:
        spec = engine.spec
        self._running[spec.engine_id] = engine
        self._fleet.add(spec).added_at_unix_s = time.time_ns() // 1_000_000_000
        self._index.add_engine(spec.engine_id)
        pool = self.pools[spec.engine_id] = self._make_pool(spec)
        watch = self.watches[spec.engine_id] = self._make_watch(self._make_api(spec), pool)
        self._mark(engine, watch)
        self._tasks[spec.engine_id] = spawn(watch.run(), name=f"watch {spec.engine_id}")
        if engine.uid:
            _logger.info("engine %s (%s) joins", spec.engine_id, spec.name)

    def _mark(self, engine: Discovered, watch: EngineWatch) -> None:
        engine_id = engine.spec.engine_id
        if engine.not_ready:
            self._fleet.hold(engine_id, DISCOVERY, engine.not_ready)
        else:
            self._fleet.release(engine_id, DISCOVERY)
        watch.said_asleep = engine.asleep
        if engine.asleep:
            self._fleet.hold(engine_id, SLEEP, "sleeping")  # until the engine itself denies it

    def _update(self, before: Discovered, engine: Discovered) -> None:
        spec = engine.spec
        watch = self.watches[spec.engine_id]
        self._running[spec.engine_id] = engine
        self._fleet.update(spec)
        self._mark(engine, watch)
        if before.not_ready != engine.not_ready:
            _logger.info(
                "engine %s (%s): %s", spec.engine_id, spec.name, engine.not_ready or "ready"
            )
        if _feeds(before.spec) != _feeds(spec):
            watch.reconfigure(self._make_api(spec))
        elif before != engine:
            watch.refresh()

    def _remove(self, engine_id: EngineId) -> "asyncio.Task[None]":
        """Forget the engine at once; the task of its watch, which must end."""
        engine = self._running.pop(engine_id)
        if engine.uid:
            _logger.info("engine %s (%s) leaves", engine_id, engine.spec.name)
        self._fleet.remove(engine_id)
        self._index.remove_engine(engine_id)
        self._tracker.forget(engine_id)
        self._identity.forget(engine_id)
        del self.watches[engine_id]
        farewell = spawn(
            self._see_off(engine_id, self.pools.pop(engine_id)), name=f"farewell {engine_id}"
        )
        self._leaving.add(farewell)
        farewell.add_done_callback(self._leaving.discard)
        return self._tasks.pop(engine_id)

    async def _see_off(self, engine_id: EngineId, pool: EnginePool) -> None:
        """Let the engine's running streams end, then leave nothing of it behind."""
        try:
            while pool.busy:
                await asyncio.sleep(SWEEP_S)
                pool.sweep(asyncio.get_running_loop().time())
        finally:
            pool.close()
        if engine_id not in self._running:
            self._metrics.forget(engine_id)

    async def stop(self) -> None:
        """End all watches; streams of engines that left are cut."""
        await cancel(*self._tasks.values(), *self._leaving)


def _same_engine(running: Discovered, told: Discovered | None) -> bool:
    if told is None or told.spec.url != running.spec.url:
        return False
    return not (running.uid and told.uid) or running.uid == told.uid


def _feeds(spec: EngineSpec) -> tuple[object, ...]:
    """What the router's connections to an engine are made from."""
    return spec.kv_events, spec.kv_replay, spec.scheduler_stats, spec.api_key_env
