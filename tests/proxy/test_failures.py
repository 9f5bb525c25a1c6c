"""Engines that refuse, clients that leave, a router that stops: over real sockets."""

import asyncio

import pytest

from lodestar_router.core.types import Ending
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
