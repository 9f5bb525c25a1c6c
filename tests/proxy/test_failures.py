"""Engines that fail, clients that leave or dawdle, a router that stops: over real sockets."""

import asyncio

import pytest

from lodestar_router.core.types import Ending
from lodestar_router.proxy.deadlines import Timeouts
from tests.fake_engine import FakeEngine
from tests.proxy.harness import completion, edge_before, post


@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_aborts_its_engine_request(stream: bool) -> None:
    engine = await FakeEngine().start()
    engine.tokens, engine.gap_s = 100, 0.05
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(stream=stream)))
        while not engine.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await client.close()
        for _ in range(200):
            if engine.aborted and not edge.inflight():
                break
            await asyncio.sleep(0.01)

        assert engine.aborted == 1
        assert edge.inflight() == 0
        assert edge.recorder.outcomes[-1].ending is Ending.CANCELLED
    await engine.stop()


async def test_engine_error_status_passes_and_gives_no_label() -> None:
    engine = await FakeEngine().start()
    engine.behaviour = "error"
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(stream=True)))
        reply = await client.reply()

        assert (reply.status, reply.json()) == (500, {"error": {"message": "no"}})
        assert [o.ending for o in edge.recorder.outcomes] == [Ending.REJECTED]
        assert edge.recorder.outcomes[0].ttft_s is None
    await engine.stop()


@pytest.mark.parametrize("dead", ["reset", "stopped"])
async def test_engine_that_fails_before_its_first_byte_is_retried_elsewhere(dead: str) -> None:
    broken, healthy = await FakeEngine().start(), await FakeEngine().start()
    broken.behaviour = "reset"
    async with edge_before(broken, healthy) as edge:
        if dead == "stopped":
            await broken.stop()
        client = await edge.client()

        for _ in range(4):
            await client.send(post("/v1/completions", completion()))
            assert (await client.reply()).headers["x-lodestar-engine"] == "e1"

        assert len(healthy.requests) == 4
        assert "e0" in edge.troubled
        assert edge.inflight() == 0
    await broken.stop()
    await healthy.stop()


async def test_502_when_every_engine_fails() -> None:
    engines = [await FakeEngine().start() for _ in range(3)]
    for engine in engines:
        engine.behaviour = "reset"
    async with edge_before(*engines) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion()))
        reply = await client.reply()

        assert reply.status == 502
        assert reply.json()["error"]["code"] == "engine_failed"
        assert sum(len(engine.requests) for engine in engines) == 2  # one retry
    for engine in engines:
        await engine.stop()


async def test_stream_broken_after_its_first_byte_is_cut_never_answered_twice() -> None:
    broken, healthy = await FakeEngine().start(), await FakeEngine().start()
    broken.behaviour = "break"
    async with edge_before(broken, healthy) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(stream=True)))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError, ValueError)):
            await client.reply()

        assert healthy.requests == []
        assert edge.recorder.outcomes[-1].ending is Ending.FAILED
        assert edge.inflight() == 0
    await broken.stop()
    await healthy.stop()


async def test_silent_engine_is_a_504_and_not_retried() -> None:
    silent, healthy = await FakeEngine().start(), await FakeEngine().start()
    silent.behaviour = "hang"
    timeouts = Timeouts(connect_s=1.0, first_byte_s=0.3, idle_s=0.0, total_s=0.0)
    async with edge_before(silent, healthy, timeouts=timeouts) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion()))
        reply = await client.reply()

        assert reply.status == 504
        assert healthy.requests == []
    await silent.stop()
    await healthy.stop()


async def test_engine_that_stops_mid_stream_is_cut_off() -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 30.0
    timeouts = Timeouts(connect_s=1.0, first_byte_s=0.0, idle_s=0.3, total_s=0.0)
    async with edge_before(engine, timeouts=timeouts) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(stream=True)))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError, ValueError)):
            await client.reply()

        assert edge.inflight() == 0
    await engine.stop()


async def test_slow_client_slows_its_engine_down_instead_of_filling_memory() -> None:
    engine = await FakeEngine().start()
    engine.tokens = 200_000  # about 12 MB of events
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(post("/v1/completions", completion(stream=True)))
        await client.head()

        await asyncio.sleep(0.5)

        (connection,) = edge.server.connections
        assert connection.transport.get_write_buffer_size() < 1_000_000
    await engine.stop()


async def test_stop_lets_running_streams_end() -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 0.1
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(post("/v1/completions", completion(stream=True)))
        await client.head()

        stopping = asyncio.get_running_loop().create_task(edge.server.stop(drain_s=5.0))
        body = b"".join([chunk async for chunk in client.chunks()])
        await stopping

        assert body.endswith(b"data: [DONE]\n\n")
        assert await client.closed()
    await engine.stop()


async def test_engine_that_dies_between_head_and_first_token_is_retried() -> None:
    dying, healthy = await FakeEngine().start(), await FakeEngine().start()
    dying.behaviour = "head_only"
    async with edge_before(dying, healthy) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(stream=True)))
        reply = await client.reply()

        assert reply.headers["x-lodestar-engine"] == "e1"
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert [o.ending for o in edge.recorder.outcomes] == [
            Ending.FAILED,
            None,
            Ending.COMPLETED,
        ]
    await dying.stop()
    await healthy.stop()
