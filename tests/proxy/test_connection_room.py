"""More clients than there can be open files for: the idle make room, /health is answered."""

import asyncio

from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, edge_before, get, stream_request, until

MOST = 8


async def test_idle_connections_make_room_the_longest_idle_first() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine, most_connections=MOST) as edge:
        idle = []
        for _ in range(MOST):
            client = await edge.client()
            await client.send(get("/health"))
            await client.reply()
            idle.append(client)
            await asyncio.sleep(0.15)

        newest = await edge.client()  # the first has been idle for a second
        await newest.send(get("/health"))

        assert (await newest.reply()).status == 200
        assert await idle[0].closed()
        await idle[-1].send(get("/health"))
        assert (await idle[-1].reply()).status == 200
    await engine.stop()


async def test_a_router_with_all_connections_busy_still_says_how_it_is() -> None:
    engine = await FakeEngine().start()
    engine.tokens, engine.gap_s = 20, 0.1
    async with edge_before(engine, most_connections=MOST) as edge:
        busy = [await _streaming(await edge.client()) for _ in range(MOST)]
        health, further = await edge.client(), await edge.client()
        await health.send(get("/health"))
        await further.send(stream_request())

        refused = await further.reply()

        assert (await health.reply()).status == 200
        assert refused.status == 503
        assert refused.json()["error"]["code"] == "router_overloaded"
        assert await further.closed()
        for client in busy:
            assert [chunk async for chunk in client.chunks()][-1].endswith(b"[DONE]\n\n")
        await until(lambda: not edge.inflight())
    await engine.stop()


async def _streaming(client: RawClient) -> RawClient:
    await client.send(stream_request())
    await client.head()
    return client
