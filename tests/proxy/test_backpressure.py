"""Clients that read slowly: the engine's bytes wait in sockets, not in the router."""

import asyncio

from tests.misbehaving_engine import Exchange, MisbehavingEngine
from tests.proxy.harness import edge_before, stream_request, until


async def test_slow_client_stops_its_engine() -> None:
    sent = 0

    async def floods(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(exchange.stream_head())
        for _ in range(1000):
            await exchange.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            sent += 0x8000
        await exchange.send(b"0\r\n\r\n")

    engine = await MisbehavingEngine(floods).start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(stream_request())
        await client.head()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.2)

        (connection,) = edge.server.connections
        assert sent < 0x8000 * 1000
        assert connection.transport.get_write_buffer_size() < 100 * 1024

        received = 0
        async for data in client.chunks():  # and then goes on where it stopped
            received += len(data)
        assert received == 0x8000 * 1000
        await until(lambda: not edge.inflight())
    await engine.stop()
