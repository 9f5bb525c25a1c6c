"""One client's connection: bytes in, whole requests out, answers back in order.

A request is handed to the application as one task once its last byte is here; the next
pipelined one waits for its end. A client that goes away cancels the task of its request.

Reading goes on while a request runs, because only a read can tell that the
client left; what it sends meanwhile is bounded by `Limits.pipelined_bytes`.
"""

import asyncio
import logging
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

import httptools

from lodestar_router.errors import RequestError, SlowHeadError
from lodestar_router.proxy.exchange import Pausable
from lodestar_router.proxy.messages import Header, Request, error_body, error_response, response
from lodestar_router.proxy.outbox import TOGETHER_S, Outbox
from lodestar_router.proxy.request_reader import Limits, RequestReader

_logger = logging.getLogger(__name__)

# What may wait for a slow client before its engine is no longer read from. A thousand clients
# that read a byte a second cost 65 MB; with twice as much they cost 104.
_WRITE_BUFFER_BYTES = 8_192
_UNSENT_BYTES = 16_384  # in the system, which would take megabytes; what is under way aside
_LINGER_S = 2.0
_TOKEN_BYTES = 4096  # a longer part is not worth holding back
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Application = Callable[[Request, "ClientConnection"], Awaitable[None]]


class ClientConnection(asyncio.Protocol):
    """The server side of one TCP connection."""

    def __init__(
        self,
        application: Application,
        limits: Limits,
        connections: "set[ClientConnection]",
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox | None = None,
    ) -> None:
        self._application = application
        self._limits = limits
        self._connections = connections
        self._loop = loop
        self._outbox = outbox or Outbox(loop)
        self._now_s = loop.time
        self._held: list[bytes] = []  # what the outbox will have flushed
        self._flush_due = False  # at the turn's end
        self._hold_until_s = 0.0
        self.reader = RequestReader(limits, loop.time, deliver=self._deliver, invite=self._invite)
        self._waiting: deque[Request] = deque()
        self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._source: Pausable | None = None
        self._slow = False  # more is written than the client has read
        self._closing = False
        self._draining = False
        self.active_at_s = loop.time()
        self.transport: asyncio.Transport

    @property
    def busy(self) -> bool:
        """Whether a request is being read or answered."""
        return self._task is not None or self.reader.begun

    @property
    def answering(self) -> bool:
        """Whether a whole request is being answered."""
        return self._task is not None

    @property
    def gone(self) -> bool:
        """Whether nothing that is written can reach the client any more."""
        return self._closing

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: what runs for it is cancelled."""
        self._connections.discard(self)
        self._closing = True
        self._waiting.clear()
        self._held.clear()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._closing:
            self._waiting_bytes += len(data)  # of no use to anybody
            if self._waiting_bytes > self._limits.pipelined_bytes:
                self.transport.pause_reading()
            return
        self.active_at_s = self._loop.time()
        try:
            self.reader.feed(data)
        except httptools.HttpParserUpgrade:
            self.drain()  # a CONNECT, to be refused: what follows cannot be parsed
        except RequestError as error:
            self._refuse(error)
        if self._waiting_bytes > self._limits.pipelined_bytes:
            self.transport.pause_reading()

    def check(self, now_s: float) -> None:
        """Give up a client that takes too long to say what it wants."""
        if self.reader.overdue(now_s) and not self._closing:
            self._refuse(SlowHeadError("the head of the request did not come in time"))

    def eof_received(self) -> bool:
        """A half-closed client can no longer be told from one that left."""
        self.flush()
        return False

    def pause_writing(self) -> None:
        """The client reads slower than the engine writes."""
        self._slow = True
        if self._source is not None:
            self._source.pause_reading()

    def resume_writing(self) -> None:
        """The client caught up."""
        self._slow = False
        if self._source is not None:
            self._source.resume_reading()

    def _invite(self) -> None:
        if self._task is None:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _deliver(self, request: Request, size_bytes: int) -> None:
        if self._task is None and not self._closing:
            self._start(request)
        else:
            self._waiting.append(request)
            self._waiting_bytes += size_bytes

    # the application's side

    def _start(self, request: Request) -> None:
        self._task = self._loop.create_task(self._run(request), name="request")  # logs by itself

    async def _run(self, request: Request) -> None:
        try:
            await self._application(request, self)
        except Exception:  # an edge: a bug must not leave the client waiting
            _logger.exception("a request failed in the router")
            self.abort()
        finally:
            self._source = None
            self._task = None
        self.active_at_s = self._loop.time()
        if not request.keep_alive or self._draining:
            self.close()
        elif self._waiting and not self._closing:
            self._next()

    def _next(self) -> None:
        request = self._waiting.popleft()
        if not self._waiting:
            self._waiting_bytes = 0
            self.transport.resume_reading()
        self._start(request)

    def _refuse(self, error: RequestError) -> None:
        """Answer a request that never became whole, unless an earlier one still runs."""
        self._draining = True
        self._waiting.clear()
        if self._task is None:
            self.write(error_response(error, close=True))
            self._close_listening()

    def _close_listening(self) -> None:
        """Close, and let the client send on for a while.

        What nobody reads turns a close into a reset, and that takes the answer back.
        """
        if not self.transport.can_write_eof():  # under TLS
            self.close()
        elif not self._closing:
            self.flush()
            self._closing = True
            self.transport.write_eof()
            self._loop.call_later(_LINGER_S, self.transport.close)

    def write(self, data: bytes) -> None:
        """Send bytes of an answer; they are dropped when the client is gone."""
        if self._closing:
            return
        self._held.append(data)
        if not self._flush_due:
            self._flush_due = True
            self._outbox.this_turn(self)

    def relay(self, data: bytes) -> None:
        """Send a part of an answer: at once, or with others if it comes right behind another."""
        if self._closing:
            return
        if len(data) > _TOKEN_BYTES:
            self._held.append(data)
            self.flush()
        elif self._held:
            self._held.append(data)
        elif (now_s := self._now_s()) < self._hold_until_s:
            self._held.append(data)
            self._outbox.soon(self)
        else:
            self._hold_until_s = now_s + TOGETHER_S
            self.transport.write(data)

    def flush(self) -> None:
        """Send what is held back."""
        self._flush_due = False
        if held := self._held:
            self._hold_until_s = self._now_s() + TOGETHER_S
            if not self.transport.is_closing():
                self.transport.write(held[0] if len(held) == 1 else b"".join(held))
            held.clear()

    def send(
        self,
        status: int,
        body: bytes,
        *,
        content_type: bytes = b"application/json",
        headers: tuple[Header, ...] = (),
    ) -> None:
        """Send a whole response of the router's own."""
        self.write(response(status, body, content_type=content_type, headers=headers))

    def send_method_not_allowed(self, allowed: bytes) -> None:
        """Send the 405 of an endpoint that takes another method."""
        body = error_body(405, "method not allowed", "method_not_allowed")
        self.send(405, body, headers=((b"allow", allowed),))

    def send_not_found(self, path: str) -> None:
        """Send the 404 of a path that leads nowhere."""
        self.send(404, error_body(404, f"no such endpoint: {path}", "not_found"))

    @property
    def unsent_bytes(self) -> int:
        """What is written and the system has not taken."""
        return self.transport.get_write_buffer_size()

    def relay_from(self, source: Pausable | None) -> None:
        """Name the engine connection to slow down when this client is slow."""
        self._source = source
        if source is not None and self._slow:
            source.pause_reading()

    def close(self) -> None:
        """Close once what was written has been sent."""
        self.flush()
        self._closing = True
        self.transport.close()

    def drain(self) -> None:
        """Close now if idle, else after the request that runs."""
        self._draining = True
        if not self.busy:
            self.close()

    def cut(self, last_words: bytes) -> None:
        """End an answer that cannot be finished: with these words, or so that it shows."""
        if last_words:
            self.write(last_words)
            self.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Cut the connection, so that a truncated answer cannot pass for a whole one.

        Without a linger time the system sends a reset: a plain close would be the
        proper end of a body that has no length.
        """
        self._closing = True
        self._held.clear()
        if (sock := self.transport.get_extra_info("socket")) is not None:
            with suppress(OSError):  # it may be closed already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()
