"""Engines whose process lives and whose inference does not: told apart without inference."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import aiohttp
import zmq.asyncio

from lodestar_router.core.fleet import EngineState, Fleet
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import EngineId, EngineSpec
from lodestar_router.engines.api import EngineApi
from lodestar_router.engines.feeds import EngineFeeds
from lodestar_router.engines.watch import EngineWatch
from lodestar_router.engines.watch_settings import WatchSettings
from lodestar_router.tasks import cancel, spawn
from tests.misbehaving_engine import MisbehavingEngine, well
from tests.proxy.harness import until

A = EngineId("a")
QUICK = WatchSettings(
    metrics_interval_s=0.02,
    metrics_timeout_s=0.05,
    probe_timeout_s=0.5,
    health_every_s=0.05,
    down_after_s=0.3,
    down_after_timeouts=2,
)


class Watched:
    """An engine that is up, and what its watch says of it."""

    def __init__(self, engine: MisbehavingEngine, state: EngineState) -> None:
        self.engine = engine
        self.state = state
        self.given_up: list[str] = []
        self.heard_at_s = -inf


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    engine = await MisbehavingEngine(well).start()
    fleet, index, context = Fleet(), PrefixIndex(), zmq.asyncio.Context()
    spec = EngineSpec(engine_id=A, url=engine.url)
    it = Watched(engine, fleet.add(spec))
    index.add_engine(A)
    async with aiohttp.ClientSession() as session:
        watch = EngineWatch(
            EngineApi(spec, session, key=None),
            EngineFeeds(spec, fleet=fleet, index=index, context=context, clock=time.monotonic),
            fleet=fleet,
            index=index,
            settings=QUICK,
            clock=time.monotonic,
            check=lambda _engine, _cards: None,
            heard_at_s=lambda: it.heard_at_s,
            on_silent=it.given_up.append,
        )
        task = spawn(watch.run(), name="watch")
        try:
            await until(lambda: it.state.up)
            yield it
        finally:
            await cancel(task)
            await engine.stop()
            context.destroy(linger=0)


async def test_engine_that_says_it_is_not_healthy_is_down_and_costs_no_inference() -> None:
    async with watched() as it:
        it.engine.unhealthy = True

        await until(lambda: not it.state.up)

        assert "/health answered 503" in it.state.reason
        await asyncio.sleep(0.5)  # it still lists its models
        assert not it.state.up
        assert it.engine.posts == []


async def test_engine_that_never_answers_is_down_and_its_waiting_requests_move() -> None:
    async with watched() as it:
        it.engine.silent = True

        await until(lambda: not it.state.up)

        assert it.given_up == ["the engine stopped answering"]


async def test_engine_that_goes_on_answering_requests_is_not_down() -> None:
    async with watched() as it:
        it.engine.silent, it.heard_at_s = True, inf

        await asyncio.sleep(0.8)

        assert it.state.up
        assert it.given_up == []


async def test_engine_that_is_healthy_again_is_taken_back() -> None:
    async with watched() as it:
        it.engine.unhealthy = True
        await until(lambda: not it.state.up)

        it.engine.unhealthy = False

        await until(lambda: it.state.up)
