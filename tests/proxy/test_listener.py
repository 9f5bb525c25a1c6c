"""Who is let in when more wait than can be served at once; real sockets."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from lodestar_router.errors import ConfigError
from lodestar_router.proxy.listener import Listener
from tests.proxy.harness import until

CROWD = 300  # many turns of the loop


class Answers(asyncio.Protocol):
    """Notes the first bytes of its client."""

    def __init__(self, heard: list[bytes]) -> None:
        self._heard = heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard.append(data)


@asynccontextmanager
async def listening(
    heard: list[bytes], room: Callable[[int], int] = lambda wanted: wanted
) -> AsyncIterator[int]:
    listener = Listener(lambda: Answers(heard), room=room)
    try:
        yield await listener.start("127.0.0.1", 0)
    finally:
        listener.close()


def connect(port: int, words: bytes) -> socket.socket:
    """A client; the loop does not turn meanwhile, so that all that connect wait together."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(words)
    return sock


def cut_off(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


async def test_a_crowd_is_let_in_whole() -> None:
    heard: list[bytes] = []
    async with listening(heard) as port:
        crowd = [connect(port, b"%d" % number) for number in range(CROWD)]

        await until(lambda: len(heard) == CROWD)

        assert {int(words) for words in heard} == set(range(CROWD))
        for sock in crowd:
            sock.close()


async def test_who_asks_how_the_router_is_waits_for_nobody_of_a_crowd() -> None:
    heard: list[bytes] = []
    async with listening(heard) as port:
        probe = connect(port, b"GET /health HTTP/1.1\r\n\r\n")
        crowd = [connect(port, b"POST") for _ in range(CROWD)]

        await until(lambda: len(heard) > CROWD)

        assert heard.index(b"GET /health HTTP/1.1\r\n\r\n") < CROWD // 2
        for sock in (probe, *crowd):
            sock.close()


async def test_the_oldest_of_those_without_room_are_closed() -> None:
    heard: list[bytes] = []
    async with listening(heard, room=lambda _: 10) as port:
        crowd = [connect(port, b"%d" % number) for number in range(30)]

        await until(lambda: len(heard) == 10)

        assert {int(words) for words in heard} == set(range(20, 30))
        assert [cut_off(sock) for sock in crowd] == [True] * 20 + [False] * 10
        for sock in crowd:
            sock.close()


async def test_less_than_no_room_lets_nobody_in_until_there_is_some() -> None:
    heard: list[bytes] = []
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    room = -3
    async with listening(heard, room=lambda _: room) as port:
        early = connect(port, b"early")
        await until(lambda: cut_off(early))
        room = 1
        late = connect(port, b"late")

        await until(lambda: heard == [b"late"])

        assert not errors
        early.close()
        late.close()


async def test_who_of_a_crowd_has_left_is_not_let_in() -> None:
    made: list[Answers] = []

    def factory() -> Answers:
        made.append(Answers([]))
        return made[-1]

    listener = Listener(factory, room=lambda wanted: wanted)
    port = await listener.start("127.0.0.1", 0)
    for _ in range(CROWD):
        socket.create_connection(("127.0.0.1", port)).close()
    stays = connect(port, b"x")

    await until(lambda: bool(made))
    await asyncio.sleep(0.1)

    assert len(made) == 1
    stays.close()
    listener.close()


async def test_a_system_without_files_for_a_connection_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[bytes] = []
    refusals = [OSError(errno.EMFILE, "too many open files")] * 2
    accept = socket.socket.accept

    def refuses(self: socket.socket) -> tuple[socket.socket, object]:
        if refusals:
            raise refusals.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", refuses)
    async with listening(heard) as port:
        client = connect(port, b"hello")

        await until(lambda: bool(heard))

        assert not refusals
        client.close()


async def test_an_address_that_is_taken_is_a_config_error() -> None:
    async with listening([]) as port:
        with pytest.raises(ConfigError, match="cannot listen on"):
            await Listener(lambda: Answers([]), room=lambda n: n).start("127.0.0.1", port)


@pytest.mark.parametrize("host", ["", "::", "0.0.0.0", "localhost"])
async def test_clients_that_have_only_ipv4_are_taken(host: str) -> None:
    heard: list[bytes] = []
    listener = Listener(lambda: Answers(heard), room=lambda wanted: wanted)
    port = await listener.start(host, 0)

    client = connect(port, b"by IPv4")
    await until(lambda: heard == [b"by IPv4"])

    client.close()
    listener.close()
