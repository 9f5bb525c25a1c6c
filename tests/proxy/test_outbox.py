"""What is held back goes out in order, soon, and never to nobody."""

import asyncio

from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.messages import Request
from lodestar_router.proxy.outbox import TOGETHER_S, Outbox
from lodestar_router.proxy.request_reader import Limits


class Wire:
    """A transport that keeps what was written, piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.pieces.append(data)

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_extra_info(self, name: str) -> None:
        return None


async def nothing(request: Request, client: ClientConnection) -> None:
    """Answer no request."""


def client_on(wire: Wire) -> ClientConnection:
    loop = asyncio.get_running_loop()
    client = ClientConnection(nothing, Limits(), set(), loop, Outbox(loop))
    client.connection_made(wire)  # type: ignore[arg-type]
    return client


async def test_what_is_written_in_one_turn_goes_out_together_at_its_end() -> None:
    wire = Wire()
    client = client_on(wire)

    client.write(b"head ")
    client.relay(b"first ")
    client.write(b"last")
    assert wire.pieces == []
    await asyncio.sleep(0)

    assert wire.pieces == [b"head first last"]


async def test_a_part_that_comes_alone_is_sent_at_once() -> None:
    wire = Wire()
    client = client_on(wire)

    for part in (b"a", b"b"):
        client.relay(part)
        assert wire.pieces[-1] == part
        await asyncio.sleep(5 * TOGETHER_S)


async def test_parts_that_race_go_together_and_within_bounds() -> None:
    wire = Wire()
    client = client_on(wire)
    parts = [b"%d " % number for number in range(50)]

    for part in parts:
        client.relay(part)
    assert wire.pieces == parts[:1]
    await asyncio.sleep(5 * TOGETHER_S)

    assert wire.pieces == [parts[0], b"".join(parts[1:])]


async def test_a_long_part_is_not_held_and_passes_nothing() -> None:
    wire = Wire()
    client = client_on(wire)

    client.relay(b"a")
    client.relay(b"b")
    client.relay(b"c" * 10_000)

    assert wire.pieces == [b"a", b"b" + b"c" * 10_000]


async def test_the_end_of_a_stream_waits_for_nothing_but_the_turn() -> None:
    wire = Wire()
    client = client_on(wire)
    client.relay(b"a")
    client.relay(b"b")

    client.write(b"end")
    await asyncio.sleep(0)

    assert wire.pieces == [b"a", b"bend"]


async def test_what_is_held_is_sent_before_a_close_and_dropped_by_a_cut() -> None:
    closed, cut = Wire(), Wire()
    closes, cuts = client_on(closed), client_on(cut)

    for client in (closes, cuts):
        client.write(b"words")
    closes.close()
    cuts.abort()
    for client in (closes, cuts):
        client.write(b"more")
        client.relay(b"more")
    await asyncio.sleep(5 * TOGETHER_S)

    assert closed.pieces == [b"words"]
    assert cut.pieces == []
