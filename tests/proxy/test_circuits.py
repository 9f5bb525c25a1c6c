"""Engines that keep failing are left alone, and taken back when they are well."""

import asyncio
import time
from contextlib import suppress

import pytest

from lodestar_router.core.circuit import CircuitSettings
from lodestar_router.core.types import EngineId
from tests.misbehaving_engine import (
    Behave,
    Exchange,
    MisbehavingEngine,
    answers,
    fails_in_its_stream,
    head_then_hangs,
    resets,
    says_garbage,
    sends_too_little,
    well,
)
from tests.proxy.harness import edge_before, post, stream_request, until

QUICK = CircuitSettings(failures_in_a_row=3, open_s=0.2, open_max_s=1.0)
FOR_GOOD = CircuitSettings(failures_in_a_row=3, open_s=60.0)


@pytest.mark.parametrize(
    "behave",
    [resets, says_garbage, answers(500), answers(502), sends_too_little, fails_in_its_stream],
)
async def test_engine_whose_inference_fails_is_left_alone(behave: Behave) -> None:
    broken, other = await MisbehavingEngine(behave).start(), await MisbehavingEngine(well).start()
    async with edge_before(broken, other, circuits=FOR_GOOD) as edge:
        for _ in range(20):
            client = await edge.client()
            await client.send(stream_request().replace(b"Host: r", b"Connection: close\r\nHost: r"))
            with suppress(ConnectionResetError):
                await asyncio.wait_for(client.reader.read(), 10)

        assert edge.circuit().state == "open"
        assert len(broken.posts) == 3
        excluded = edge.recorder.decisions[-1].excluded
        assert excluded is not None
        assert excluded[EngineId("e0")].startswith("circuit open: 3 failures in a row")
    await broken.stop()
    await other.stop()


async def test_one_request_tries_it_again_and_its_first_token_takes_it_back() -> None:
    engine, other = await MisbehavingEngine(resets).start(), await MisbehavingEngine(well).start()
    async with edge_before(engine, other, circuits=QUICK) as edge:
        while edge.circuit().clear:
            await edge.ask()
        release = asyncio.Event()

        async def waits(exchange: Exchange) -> None:
            await release.wait()
            await exchange.answer()

        engine.behave, before = waits, len(engine.posts)
        await asyncio.sleep(0.25)
        asking = asyncio.gather(*(edge.ask(stream=True) for _ in range(10)))
        await until(lambda: len(engine.posts) == before + 1)
        await asyncio.sleep(0.1)
        assert (len(engine.posts), edge.circuit().state) == (before + 1, "half_open")
        release.set()
        await asking

        assert edge.circuit().state == "closed"
        assert len(engine.posts) == before + 1
        await asyncio.gather(*(edge.ask() for _ in range(4)))
        assert len(engine.posts) > before + 1
    await engine.stop()
    await other.stop()


async def test_flapping_engine_costs_its_clients_little() -> None:
    started_s = time.monotonic()

    async def flaps(exchange: Exchange) -> None:
        if int((time.monotonic() - started_s) * 5) % 2:
            await exchange.answer()
        else:
            exchange.reset()

    flapping, other = await MisbehavingEngine(flaps).start(), await MisbehavingEngine(well).start()
    async with edge_before(flapping, other, circuits=QUICK) as edge:
        statuses = []
        while time.monotonic() - started_s < 2.0:
            statuses.append((await edge.ask()).status)
            await asyncio.sleep(0.01)

        assert set(statuses) == {200}
        failed = edge.counted("engine_failures", engine="e0", cause="closed", broken="no")
        assert failed <= 15  # of some 50 that it would have failed
    await flapping.stop()
    await other.stop()


async def test_open_circuits_of_all_engines_refuse_nobody() -> None:
    engines = [await MisbehavingEngine(resets).start() for _ in range(2)]
    async with edge_before(*engines, circuits=FOR_GOOD) as edge:
        for _ in range(8):
            assert (await edge.ask()).status == 502
        assert [edge.circuit(n).state for n in (0, 1)] == ["open", "open"]

        for engine in engines:
            engine.behave = well

        assert [(await edge.ask()).status for _ in range(4)] == [200] * 4
        assert "closed" in [edge.circuit(n).state for n in (0, 1)]
    for engine in engines:
        await engine.stop()


@pytest.mark.parametrize("headers", [("retry-after: 20",), ()])
async def test_engine_that_is_full_gets_a_pause(headers: tuple[str, ...]) -> None:
    busy, other = (
        await MisbehavingEngine(answers(503, *headers)).start(),
        await MisbehavingEngine(well).start(),
    )
    async with edge_before(busy, other) as edge:
        assert [(await edge.ask()).status for _ in range(10)] == [200] * 10

        assert edge.circuit().state == "resting"
        assert edge.circuit().opened_total == 0
    await busy.stop()
    await other.stop()
    assert len(busy.posts) <= 2


async def test_engine_that_hangs_with_streams_waiting_gets_no_more() -> None:
    hung, other = (
        await MisbehavingEngine(head_then_hangs).start(),
        await MisbehavingEngine(well).start(),
    )
    async with edge_before(hung, other, circuits=FOR_GOOD, hang_s=0.4) as edge:
        waiting = [await edge.client() for _ in range(4)]
        for client in waiting:
            await client.send(stream_request())
        await until(lambda: not edge.circuit().clear)
        asked = len(hung.posts)

        assert [(await edge.ask()).status for _ in range(10)] == [200] * 10

        assert edge.circuit().reason == "says nothing"
        assert len(hung.posts) == asked
    await hung.stop()
    await other.stop()


async def test_engine_that_serves_somebody_does_not_hang() -> None:
    async def serves_one_at_a_time(exchange: Exchange) -> None:
        await exchange.send(exchange.stream_head())
        while exchange.number:  # the others wait in its queue
            await asyncio.sleep(1)
        while True:
            await exchange.send(b"1\r\nx\r\n")
            await asyncio.sleep(0.05)

    engine = await MisbehavingEngine(serves_one_at_a_time).start()
    async with edge_before(engine, hang_s=0.4) as edge:
        for _ in range(3):
            client = await edge.client()
            await client.send(post("/v1/completions", {"model": "tiny", "stream": True}))
        await asyncio.sleep(1.2)

        assert edge.circuit().clear
    await engine.stop()
