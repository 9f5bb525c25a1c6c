"""Models that do not answer real requests get none; each is checked by itself."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
import zmq.asyncio

from lodestar_router.config.static_backends import MODEL_TYPES
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import EngineId, EngineSpec
from lodestar_router.engines.api import EngineApi
from lodestar_router.engines.feeds import EngineFeeds
from lodestar_router.engines.health_checks import Check, HealthChecks, request_of
from lodestar_router.engines.watch import EngineWatch
from lodestar_router.engines.watch_settings import WatchSettings
from lodestar_router.tasks import cancel, spawn
from tests.fake_engine import FakeEngine

A, B = EngineId("a"), EngineId("b")
CHECK = Check(engine_id=A, model="tiny", kind="completion", interval_s=0.02, timeout_s=2.0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def checked(*engines: FakeEngine) -> AsyncIterator[tuple[HealthChecks, Fleet]]:
    fleet, index, context = Fleet(), PrefixIndex(), zmq.asyncio.Context()
    watches: dict[EngineId, EngineWatch] = {}
    tasks: list[asyncio.Task[None]] = []
    async with aiohttp.ClientSession() as session:
        for engine_id, engine in zip((A, B), engines, strict=False):
            await engine.start()
            spec = EngineSpec(engine_id=engine_id, url=engine.url, models=("tiny", "other"))
            fleet.add(spec)
            watch = watches[engine_id] = EngineWatch(
                EngineApi(spec, session, key="hunter2"),
                EngineFeeds(spec, fleet=fleet, index=index, context=context, clock=time.monotonic),
                fleet=fleet,
                index=index,
                settings=WatchSettings(metrics_interval_s=0.02),
                clock=time.monotonic,
                check=lambda _engine, _cards: None,
            )
            tasks.append(spawn(watch.run(), name="watch"))
        checks = HealthChecks(watches.get)
        try:
            await until(lambda: all(state.up for state in fleet))
            yield checks, fleet
        finally:
            await checks.stop()
            await cancel(*tasks)
            for engine in engines:
                await engine.stop()
            context.destroy(linger=0)


async def test_model_that_fails_is_taken_off_and_put_back() -> None:
    engine = FakeEngine()
    async with checked(engine) as (checks, fleet):
        engine.behaviour = "error"
        await checks.use([CHECK])
        await until(lambda: not fleet[A].serves("tiny"))
        assert fleet[A].serves("other")  # it is not checked

        engine.behaviour = "answer"
        await until(lambda: fleet[A].serves("tiny"))

        path, headers, body = engine.requests[-1]
        assert path == "/v1/completions"
        assert json.loads(body) == {"model": "tiny", "prompt": "Hello", "max_tokens": 3}
        assert headers["Authorization"] == "Bearer hunter2"


async def test_engine_that_hangs_delays_no_other_s_check() -> None:
    hangs, works = FakeEngine(), FakeEngine()
    async with checked(hangs, works) as (checks, fleet):
        hangs.gap_s = 3600.0
        await checks.use([replace(CHECK, timeout_s=0.2), replace(CHECK, engine_id=B)])

        await until(lambda: len(works.requests) > 5 and not fleet[A].serves("tiny"))

        assert fleet[B].serves("tiny")
        assert len(hangs.requests) < 5


async def test_check_that_is_dropped_leaves_no_mark() -> None:
    engine = FakeEngine()
    async with checked(engine) as (checks, fleet):
        engine.behaviour = "error"
        await checks.use([CHECK])
        await until(lambda: not fleet[A].serves("tiny"))

        await checks.use([])

        await until(lambda: fleet[A].serves("tiny"))


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_there_is_a_request_for_every_type(kind: str) -> None:
    path, payload = request_of(kind, "tiny")

    assert path.startswith("/v1/")
    assert isinstance(payload, aiohttp.FormData) == (kind == "transcription")
    if isinstance(payload, dict):
        assert payload["model"] == "tiny"


async def test_silence_is_sent_as_a_form() -> None:
    engine = FakeEngine()
    async with checked(engine) as (checks, _):
        await checks.use([replace(CHECK, kind="transcription")])
        await until(lambda: bool(engine.requests))

        path, headers, body = engine.requests[0]
        assert path == "/v1/audio/transcriptions"
        assert headers["Content-Type"].startswith("multipart/form-data")
        assert b"RIFF" in body
