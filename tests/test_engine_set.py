"""Engines that come and go: nothing of one that left stays, nothing that runs is cut."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from math import inf

import aiohttp
import zmq.asyncio

from lodestar_router.core.fleet import Fleet
from lodestar_router.core.kv_events import ViewId
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import EngineId, EngineSpec, PrefixViewKind
from lodestar_router.discovery.base import Discovered
from lodestar_router.engine_set import DISCOVERY, EngineSet
from lodestar_router.engines.api import EngineApi
from lodestar_router.engines.feeds import EngineFeeds
from lodestar_router.engines.watch import SLEEP, EngineWatch
from lodestar_router.engines.watch_settings import WatchSettings
from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.model_identity import ModelIdentity
from lodestar_router.proxy.engine_pool import EnginePool
from lodestar_router.proxy.metrics import Metrics
from tests.fake_engine import FakeEngine
from tests.proxy.harness import TIMEOUTS

A = EngineId("a")


@dataclass
class Rig:
    """An engine set whose engines are all at one fake engine's address."""

    engine: FakeEngine
    engines: EngineSet
    fleet: Fleet
    index: PrefixIndex
    tracker: ResidualTracker
    metrics: Metrics

    def told(self, engine_id: EngineId = A, **fields: str) -> Discovered:
        spec = EngineSpec(engine_id=engine_id, url=self.engine.url, name="pod-1")
        return Discovered(spec=spec, uid=fields.pop("uid", "u1"), **fields)  # type: ignore[arg-type]


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    engine = await FakeEngine().start()
    fleet, index, tracker, metrics = Fleet(), PrefixIndex(), ResidualTracker(), Metrics()
    identity = ModelIdentity(fleet, allow_mixed=False)
    context = zmq.asyncio.Context()
    async with aiohttp.ClientSession() as session:

        def make_watch(api: EngineApi, _: EnginePool) -> EngineWatch:
            return EngineWatch(
                api,
                EngineFeeds(
                    api.spec, fleet=fleet, index=index, context=context, clock=time.monotonic
                ),
                fleet=fleet,
                index=index,
                settings=WatchSettings(metrics_interval_s=0.02),
                clock=time.monotonic,
                check=identity.check,
            )

        engines = EngineSet(
            fleet=fleet,
            index=index,
            tracker=tracker,
            identity=identity,
            metrics=metrics,
            make_api=lambda spec: EngineApi(spec, session, key=None),
            make_watch=make_watch,
            make_pool=lambda spec: EnginePool(spec, TIMEOUTS),
        )
        try:
            yield Rig(engine, engines, fleet, index, tracker, metrics)
        finally:
            await engines.stop()
            await engine.stop()
            context.destroy(linger=0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_told_engine_joins_and_is_probed() -> None:
    async with rig() as it:
        await it.engines.apply([it.told()])

        await until(lambda: it.fleet[A].up)

        assert it.fleet.models()[0]["id"] == "tiny"


async def test_engine_that_is_told_no_more_leaves_nothing_behind() -> None:
    async with rig() as it:
        await it.engines.apply([it.told()])
        await until(lambda: it.fleet[A].up)
        it.tracker.observe(A, 2.0, 0.0)
        it.metrics.retried(A)

        await it.engines.apply([])
        await until(lambda: b'engine="a"' not in it.metrics.exposition())

        assert A not in it.fleet
        assert it.index.kind(A) is PrefixViewKind.NONE
        assert not it.engines.watches
        assert not it.engines.pools
        it.engines.kick(A)


async def test_engine_that_is_told_differently_keeps_its_state() -> None:
    async with rig() as it:
        await it.engines.apply([it.told()])
        await until(lambda: it.fleet[A].up)
        state, watch, pool = it.fleet[A], it.engines.watches[A], it.engines.pools[A]

        told = it.told()
        await it.engines.apply([replace(told, spec=replace(told.spec, gpu="A30"))])

        assert it.fleet[A] is state
        assert it.engines.watches[A] is watch
        assert it.engines.pools[A] is pool
        assert state.spec.gpu == "A30"


async def test_another_uid_at_the_same_address_is_another_engine() -> None:
    async with rig() as it:
        await it.engines.apply([it.told(uid="u1")])
        await until(lambda: it.fleet[A].up)
        old = it.fleet[A]
        it.index.set_kind(ViewId(A), PrefixViewKind.EXACT)
        it.tracker.observe(A, 2.0, 0.0)

        await it.engines.apply([it.told(uid="u2")])

        assert it.fleet[A] is not old
        assert it.index.kind(A) is PrefixViewKind.APPROXIMATE
        await until(lambda: it.fleet[A].up)


async def test_engine_whose_source_changes_is_the_same() -> None:
    async with rig() as it:
        await it.engines.apply([it.told(uid="")])
        state = it.fleet[A]

        await it.engines.apply([it.told(uid="u1")])

        assert it.fleet[A] is state


async def test_engine_that_is_not_ready_is_held_and_watched() -> None:
    async with rig() as it:
        await it.engines.apply([it.told(not_ready="terminating")])
        await until(lambda: it.fleet[A].up)
        assert it.fleet[A].holds == {DISCOVERY: "terminating"}

        await it.engines.apply([it.told()])

        assert not it.fleet[A].holds


async def test_label_of_a_sleeping_engine_holds_it_at_once() -> None:
    async with rig() as it:
        await it.engines.apply([it.told()])
        await until(lambda: it.fleet[A].up)

        await it.engines.apply([replace(it.told(), asleep=True)])
        assert SLEEP in it.fleet[A].holds
        await it.engines.apply([it.told()])

        await until(lambda: not it.fleet[A].holds)


async def test_changed_revision_has_the_models_read_again() -> None:
    async with rig() as it:
        await it.engines.apply([it.told()])
        await until(lambda: it.fleet[A].up)

        it.engine.adapters = ["sql-lora"]
        await it.engines.apply([it.told(revision="2")])

        await until(lambda: it.fleet[A].serves("sql-lora"))


async def test_engine_that_waits_for_another_model_s_engine_to_leave_is_let_in_then() -> None:
    async with rig() as it:
        other = await FakeEngine(root="/models/new").start()
        old = it.told()
        new_spec = EngineSpec(engine_id=EngineId("b"), url=other.url)
        new = Discovered(spec=new_spec, uid="u2")
        await it.engines.apply([old])
        await until(lambda: it.fleet[A].up)
        await it.engines.apply([old, new])
        await it.engines.watches[EngineId("b")].probed.wait()
        assert "different models" in it.fleet[EngineId("b")].reason

        await it.engines.apply([replace(old, not_ready="terminating"), new])

        await until(lambda: it.fleet[EngineId("b")].up)
        await it.engines.stop()
        await other.stop()


async def test_connections_of_an_engine_that_left_are_kept_while_they_are_used() -> None:
    async with rig() as it:
        await it.engines.apply([it.told()])
        pool = it.engines.pools[A]
        connection = await pool.connect(ends_at_s=inf)

        await it.engines.apply([])
        await asyncio.sleep(0)
        assert not connection.closed
        pool.give_back(connection)

        await until(lambda: connection.closed)
