"""One connection to an engine's PUB socket, whose end is noticed at once.

ZeroMQ hides broken connections: a SUB socket reconnects by itself and delivers
the batches of a restarted engine after those of its former life, as if they
were one stream. Here a connection is made once and never mended: all of its
batches come from one life of the engine, and a new one starts from a new socket.

Cost     two sockets per engine. Heartbeats find a host that vanished.
Errors   zmq.ZMQError for an endpoint that cannot be connected to.
"""

from typing import Any

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

_HEARTBEAT_INTERVAL_MS = 5_000
_HEARTBEAT_TIMEOUT_MS = 15_000  # three missed heartbeats; a busy engine's I/O thread still answers
_RECEIVE_LIMIT = 100_000  # batches; as many as vLLM keeps for a slow subscriber

_LOST = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_LOST |= zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH


def blocking_view(socket: zmq.asyncio.Socket) -> "zmq.Socket[bytes]":
    """The same socket for `receive_now`, which spares a future per message."""
    return zmq.Socket.shadow(socket.underlying)


def receive_now(socket: "zmq.Socket[bytes]") -> list[bytes] | None:
    """The frames of the next message that is here already; None if there is none."""
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


class KvConnection:
    """A SUB socket and its monitor; use as a context manager."""

    def __init__(self, context: zmq.asyncio.Context, endpoint: str, topic: bytes) -> None:
        self._socket = context.socket(zmq.SUB)
        self._socket.linger = 0
        self._socket.rcvhwm = _RECEIVE_LIMIT
        self._socket.ipv6 = "[" in endpoint
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)  # never: see the module
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_INTERVAL_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)
        self._socket.subscribe(topic)
        self._raw = blocking_view(self._socket)
        self._endpoint = endpoint
        self._monitor: Any = None

    def __enter__(self) -> "KvConnection":
        return self

    def __exit__(self, *_: object) -> None:
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close()
        self._socket.close()

    async def connect(self) -> bool:
        """Connect once; False when it was refused."""
        self._monitor = self._socket.get_monitor_socket(_LOST | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._socket.connect(self._endpoint)
        return await self._next_change() == zmq.EVENT_HANDSHAKE_SUCCEEDED

    async def lost(self) -> None:
        """Return when the connection has ended."""
        while await self._next_change() == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            pass

    async def wait(self, timeout_s: float) -> bool:
        """Whether a message arrived within `timeout_s`."""
        return bool(await self._socket.poll(round(timeout_s * 1000)))

    def receive(self) -> list[bytes] | None:
        """The frames of the next message that is here already."""
        return receive_now(self._raw)

    async def _next_change(self) -> int:
        return int(parse_monitor_message(await self._monitor.recv_multipart())["event"])
