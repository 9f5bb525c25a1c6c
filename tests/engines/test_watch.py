"""What a watch makes of what an engine says, or does not say, of itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import zmq.asyncio

from lodestar_router.core.fleet import EngineState, Fleet
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import EngineId, EngineSpec
from lodestar_router.engines.api import EngineApi
from lodestar_router.engines.feeds import EngineFeeds
from lodestar_router.engines.watch import SLEEP, EngineWatch
from lodestar_router.engines.watch_settings import WatchSettings
from lodestar_router.tasks import cancel, spawn
from tests.fake_engine import FakeEngine

A = EngineId("a")


class Watched:
    """One engine's watch, running, and the fleet that it marks."""

    def __init__(self, watch: EngineWatch, fleet: Fleet, session: aiohttp.ClientSession) -> None:
        self.watch = watch
        self.fleet = fleet
        self.session = session

    @property
    def state(self) -> EngineState:
        return self.fleet[A]

    @property
    def models(self) -> list[str]:
        return [card["id"] for card in self.state.cards]


@asynccontextmanager
async def watched(engine: FakeEngine, *, models: Sequence[str] = ()) -> AsyncIterator[Watched]:
    await engine.start()
    fleet, index = Fleet(), PrefixIndex()
    spec = EngineSpec(engine_id=A, url=engine.url, models=tuple(models))
    fleet.add(spec)
    index.add_engine(A)
    context = zmq.asyncio.Context()
    async with aiohttp.ClientSession() as session:
        watch = EngineWatch(
            EngineApi(spec, session, key=None),
            EngineFeeds(spec, fleet=fleet, index=index, context=context, clock=time.monotonic),
            fleet=fleet,
            index=index,
            settings=WatchSettings(metrics_interval_s=0.02),
            clock=time.monotonic,
            check=lambda _engine, _cards: None,
        )
        task = spawn(watch.run(), name="watch")
        try:
            yield Watched(watch, fleet, session)
        finally:
            await cancel(task)
            await engine.stop()
            context.destroy(linger=0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_declared_models_are_those_that_count() -> None:
    async with watched(FakeEngine(), models=["tiny", "other"]) as it:
        await until(lambda: it.state.up)

        assert it.models == ["tiny", "other"]
        assert it.state.cards[0]["max_model_len"] == 4096
        assert it.state.cards[1]["owned_by"] == "vllm"


async def test_declared_models_need_no_model_list_and_no_metrics() -> None:
    engine = FakeEngine()
    engine.lists_models = engine.has_metrics = False
    async with watched(engine, models=["tiny"]) as it:
        await until(lambda: it.watch.metrics_errors > 2)

        assert it.state.up
        assert it.models == ["tiny"]


async def test_engine_without_a_model_list_is_down_if_nothing_is_declared() -> None:
    engine = FakeEngine()
    engine.lists_models = False
    async with watched(engine) as it:
        await it.watch.probed.wait()

        assert not it.state.up
        assert "answered 404" in it.state.reason


async def test_refresh_reads_the_models_at_once() -> None:
    engine = FakeEngine()
    async with watched(engine) as it:
        await until(lambda: it.state.up)

        engine.adapters = ["sql-lora"]
        it.watch.refresh()
        await until(lambda: it.models == ["tiny", "sql-lora"])


async def test_sleeping_engine_is_held_until_it_says_that_it_is_awake() -> None:
    engine = FakeEngine()
    engine.sleeping = True
    async with watched(engine) as it:
        await until(lambda: it.state.up)
        assert it.state.holds == {SLEEP: "sleeping"}

        engine.sleeping = False
        it.watch.refresh()
        await until(lambda: not it.state.holds)


async def test_the_engine_s_own_word_on_sleeping_counts_more_than_somebody_else_s() -> None:
    engine = FakeEngine()
    engine.sleeping = False
    async with watched(engine) as it:
        it.watch.said_asleep = True
        it.fleet.hold(A, SLEEP, "sleeping")
        await until(lambda: it.state.up)

        assert not it.state.holds


async def test_somebody_else_s_word_on_sleeping_counts_if_the_engine_has_none() -> None:
    async with watched(FakeEngine()) as it:
        it.watch.said_asleep = True
        await until(lambda: it.state.up)
        assert it.state.holds

        it.watch.said_asleep = False
        it.watch.refresh()
        await until(lambda: not it.state.holds)


async def test_other_feeds_of_the_same_engine_are_taken_while_it_stays_up() -> None:
    async with watched(FakeEngine()) as it:
        await until(lambda: it.state.up)
        since_s = it.state.changed_at_s

        spec = replace(it.state.spec, scheduler_stats=("tcp://*:5559",))
        it.watch.reconfigure(EngineApi(spec, it.session, key=None))
        await until(lambda: it.watch.describe()["scheduler_stats"] is not None)

        assert it.watch.describe()["scheduler_stats"]["endpoints"] == ("tcp://127.0.0.1:5559",)
        assert it.state.up
        assert it.state.changed_at_s == since_s
