"""Streams take turns when more of them have something than a turn of the loop can take."""

import asyncio
from typing import cast

import pytest

from lodestar_router.proxy import read_pace
from lodestar_router.proxy.read_pace import ReadPace
from tests.fake_engine import FakeEngine
from tests.misbehaving_engine import Exchange, MisbehavingEngine
from tests.proxy.harness import RawClient, edge_before, stream_request, until

MANY = 3


class Socket:
    """A transport that only knows whether it is read."""

    def __init__(self) -> None:
        self.read = True
        self.closing = False

    def pause_reading(self) -> None:
        self.read = False

    def resume_reading(self) -> None:
        self.read = True

    def is_closing(self) -> bool:
        return self.closing


class Stream:
    """A connection to an engine."""

    def __init__(self) -> None:
        self.socket = Socket()
        self.transport = cast(asyncio.Transport, self.socket)
        self.paused = self.closed = False


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_pace, "_MANY", MANY)


def read(streams: list[Stream]) -> list[bool]:
    return [stream.socket.read for stream in streams]


async def test_as_many_as_a_turn_can_take_are_read_again_at_once() -> None:
    pace, streams = ReadPace(), [Stream() for _ in range(MANY)]
    for _ in range(5):
        for stream in streams:
            pace.came(stream)

        assert all(read(streams))
        await asyncio.sleep(0)


async def test_the_others_rest_and_go_on_in_their_order() -> None:
    pace, streams = ReadPace(), [Stream() for _ in range(3 * MANY)]
    for stream in streams:
        pace.came(stream)
    seen = [read(streams)]
    for _ in range(2):
        await asyncio.sleep(0)
        seen.append(read(streams))

    assert [sum(flags) for flags in seen] == [MANY, 2 * MANY, 3 * MANY]
    assert seen[1] == [True] * 2 * MANY + [False] * MANY


async def test_while_some_rest_who_is_read_waits_behind_them() -> None:
    pace, streams = ReadPace(), [Stream() for _ in range(2 * MANY)]
    often = Stream()
    for stream in (often, *streams):
        pace.came(stream)
    pace.came(often)

    await asyncio.sleep(0)
    assert read([often, streams[-1]]) == [False, False]
    await asyncio.sleep(0)
    assert read([often, streams[-1]]) == [True, True]


async def test_who_cannot_go_on_is_left_alone() -> None:
    pace, streams = ReadPace(), [Stream() for _ in range(MANY + 4)]
    for stream in streams:
        pace.came(stream)
    slow, closed, closing, well = streams[MANY:]
    slow.paused = closed.closed = closing.socket.closing = True

    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert read([slow, closed, closing, well]) == [False, False, False, True]


async def test_many_streams_at_once_come_whole() -> None:
    engine = await FakeEngine().start()
    engine.tokens = 40
    async with edge_before(engine) as edge:
        clients = [await edge.client() for _ in range(10 * MANY)]
        for client in clients:
            await client.send(stream_request())
        replies = [await client.reply() for client in clients]

        assert {reply.body.count(b"data: ") for reply in replies} == {engine.tokens + 2}
        assert all(reply.body.endswith(b"[DONE]\n\n") for reply in replies)
        assert not edge.inflight()
    await engine.stop()


async def test_slow_clients_stop_engines_whose_streams_rest() -> None:
    sent, pieces, count = 0, 200, 3 * MANY

    async def floods(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.send(exchange.stream_head())
        for _ in range(pieces):
            await exchange.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            sent += 0x8000
        await exchange.send(b"0\r\n\r\n")

    engine = await MisbehavingEngine(floods).start()
    async with edge_before(engine) as edge:
        clients = [await edge.client() for _ in range(count)]
        for client in clients:
            await client.send(stream_request())
            await client.head()
        await asyncio.sleep(0.3)

        assert sent < 0x8000 * pieces * count
        whole = await asyncio.gather(*(_received(client) for client in clients))
        assert whole == [0x8000 * pieces] * count
        await until(lambda: not edge.inflight())
    await engine.stop()


async def _received(client: RawClient) -> int:
    return sum([len(data) async for data in client.chunks()])
