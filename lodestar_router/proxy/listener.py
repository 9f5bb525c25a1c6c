"""Listening sockets, and who is let in.

libuv accepts one connection per turn of the loop. While turns are long because many
streams run, a crowd that connects would wait its number in turns, and /health with it; and
once the system's queue is full it drops whoever wants to connect, which clients repeat only
after a second. So all that wait are accepted, and _LET_IN of them let in a turn, the newest
first: of a crowd that lasts, those who came long ago have given up. A look at the first bytes
of a crowd finds who only asks how the router is, and waits for nobody. Under TLS it finds none.

In       an address; `room`, which says for how many there is room.
Out      a protocol of the factory's for each that is let in; for whom there is no room,
         the oldest first, are closed.
Cost     about 10 us for one that waits.
Errors   ConfigError when the address cannot be listened on.
"""

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lodestar_router.errors import ConfigError
from lodestar_router.tasks import spawn

_logger = logging.getLogger(__name__)

_BACKLOG = 4096  # the system has a bound of its own (somaxconn), usually this one
_ACCEPT = _BACKLOG  # in a turn: all that can have come meanwhile, in some 30 ms
_LET_IN = 64  # in a turn: about as long
_AGAIN_S = 0.1  # after the system had no file or memory left for a connection
_URGENT = (b"GET /health", b"GET /ready", b"GET /metrics")
_URGENT_BYTES = max(map(len, _URGENT))
_Address = tuple[Any, ...]  # (host, port) or (host, port, flow, scope)


class Listener:
    """Accepts the connections of one address.

    Args:
        factory: makes the protocol of a connection.
        room: told how many wait, says how many of them may be let in.
    """

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        *,
        room: Callable[[int], int],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._factory = factory
        self._room = room
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._waiting: deque[socket.socket] = deque()
        self._turn: asyncio.Handle | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which the system chose if `port` is 0.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        self._loop = loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            families = {each[4]: each[0] for each in found if _known(each[0])}
            self._sockets += _listening_at(families, port)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error}") from error
        for sock in self._sockets:
            loop.add_reader(sock, self._accept, sock)
        bound_port: int = self._sockets[0].getsockname()[1]  # some family is known
        return bound_port

    def close(self) -> None:
        """Accept nothing more."""
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()
        while self._waiting:
            self._waiting.popleft().close()

    def _accept(self, listening: socket.socket) -> None:
        """Take what waits in the system's queue, which is soon full."""
        came = list(self._queued(listening))
        waiting = self._waiting
        crowded = len(waiting) + len(came) > _LET_IN
        waiting += self._without_urgent(came) if crowded else came
        room = max(self._room(len(waiting)), 0)
        while len(waiting) > room:
            waiting.popleft().close()
        if self._turn is None:
            self._let_in_newest()

    def _queued(self, listening: socket.socket) -> Iterator[socket.socket]:
        try:
            for _ in range(_ACCEPT):
                yield listening.accept()[0]
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._pause(listening, error)

    def _without_urgent(self, came: list[socket.socket]) -> list[socket.socket]:
        """Let in who asks how the router is; returns who else has not left."""
        others = []
        for sock in came:
            start = _first_bytes(sock)
            if start == b"":
                sock.close()
            elif start is not None and start.startswith(_URGENT):
                self._begin(sock)
            else:
                others.append(sock)
        return others

    def _let_in_newest(self) -> None:
        for _ in range(min(_LET_IN, len(self._waiting))):
            self._begin(self._waiting.pop())
        self._turn = self._loop.call_soon(self._let_in_newest) if self._waiting else None

    def _begin(self, sock: socket.socket) -> None:
        spawn(self._let_in(sock), name="accept", loop=self._loop)

    async def _let_in(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, sock, ssl=self._tls)
        except OSError:  # no handshake came of it, or the client left
            sock.close()

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """What cannot be accepted stays readable: do not come back at once."""
        _logger.warning("no connection can be accepted: %s", error)
        self._loop.remove_reader(listening)
        self._loop.call_later(_AGAIN_S, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)


def _first_bytes(sock: socket.socket) -> bytes | None:
    """Of what a client sends; None if nothing came yet, b"" if nothing ever will."""
    try:
        return sock.recv(_URGENT_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _known(family: int) -> bool:
    """Whether the system has it: some do without IPv6."""
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def _listening_at(families: Mapping[_Address, int], port: int) -> list[socket.socket]:
    """A socket for each address, all with one port; for "::" alone one that takes IPv4 too."""
    sockets: list[socket.socket] = []
    try:
        for address, family in families.items():
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, len(families) > 1)
            sock.bind((address[0], port, *address[2:]))
            sock.listen(_BACKLOG)
            port = sock.getsockname()[1]
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets
