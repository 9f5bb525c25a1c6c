"""One connection to an engine: a request's bytes out, the answer's bytes through.

The answer's head is rewritten; its body is relayed as it came, framing
included, with no object per chunk. llhttp follows along to find the end of the
answer, and the body is looked at only until its first token.

    idle ─start()─► waiting for the head ─► relaying ─► idle (kept alive) or closed
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from lodestar_router.core.sse import FirstTokenScanner
from lodestar_router.errors import EngineError
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.messages import Header, client_head


class ExchangeObserver(Protocol):
    """Who wants to know how an exchange goes."""

    def on_head(self, status: int) -> list[bytes]:
        """The engine answered; returns header lines to add to the client's head."""

    def on_first_token(self) -> None:
        """The first token passed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An engine's answer that went through to its end."""

    status: int
    tail: bytes  # its last bytes, framing included: where usage is


class BrokenAnswerError(EngineError):
    """The engine broke after bytes of its answer had gone to the client."""


class EngineConnection(asyncio.Protocol):
    """The client side of one TCP connection; carries one exchange at a time."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_closed: Callable[["EngineConnection"], None]
    ) -> None:
        self._loop = loop
        self._on_closed = on_closed
        self._client: ClientConnection | None = None
        self._paused = False
        self.closed = False
        self.used = False  # carried an exchange before: the engine may be closing it just now
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = cast(asyncio.Transport, transport)

    def start(
        self,
        request: bytes,
        client: ClientConnection,
        observer: ExchangeObserver,
        *,
        scan: bool,
        http_1_0: bool,
        keep_alive: bool,
    ) -> "asyncio.Future[Answer]":
        """Send a request and relay its answer to `client`.

        Args:
            scan: look for the first token of a stream.
            http_1_0: the client cannot read chunked framing: take it off.
            keep_alive: whether the client's connection outlives the answer.

        Returns:
            A future of the answer. It fails with EngineError when nothing went to
            the client yet, with BrokenAnswerError when something did.
        """
        self._client = client
        self._observer = observer
        self._scanner = FirstTokenScanner() if scan else None
        self._unframe = http_1_0
        self._keep_alive = keep_alive
        self._parser = httptools.HttpResponseParser(self)
        self._reason = b""
        self._headers: list[Header] = []
        self._head: bytes | None = b""  # received so far; None once relayed
        self._head_complete = False
        # vLLM sends a stream's head at once and its body with the first token: until
        # then another engine can still answer, so the client is sent nothing.
        self._body_begun = False
        self._informational = 0  # 1xx heads to skip in front of the final one
        self._pieces: list[bytes] = []
        self._complete = False
        self._reusable = False
        self._until_close = False
        self._before = self._last = b""
        self._done: asyncio.Future[Answer] = self._loop.create_future()
        self.started_at_s = self.active_at_s = self._loop.time()
        self.transport.write(request)
        return self._done

    # asyncio's side

    def data_received(self, data: bytes) -> None:
        """Called by the loop: the path of every chunk."""
        client = self._client
        if client is None:  # an engine has nothing to say between exchanges
            self.transport.abort()
            return
        self.active_at_s = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail(EngineError(f"malformed answer: {error}"))
            return
        self._before, self._last = self._last, data
        if self._head is None:
            client.write(data if not self._unframe else self._take_pieces())
        else:
            self._head += data
            if self._head_complete and (self._body_begun or self._complete):
                self._relay_head(client)
        if self._complete:
            self._finish()

    def _relay_head(self, client: ClientConnection) -> None:
        """The head is whole: send the client its own, with the body bytes behind it."""
        assert self._head is not None
        body_start = 0
        for _ in range(self._informational + 1):
            body_start = self._head.index(b"\r\n\r\n", body_start) + 4
        body, self._head = self._head[body_start:], None
        extra = self._observer.on_head(self._parser.get_status_code())
        chunked = any(name == b"transfer-encoding" for name, _ in self._headers)
        if chunked and not self._unframe:
            extra.append(b"transfer-encoding: chunked")
        if self._unframe or self._until_close or not self._keep_alive:
            extra.append(b"connection: close")
            client.drain()  # only its end tells the client where the body ends
        head = client_head(self._parser.get_status_code(), self._reason, self._headers, extra=extra)
        client.write(head + (self._take_pieces() if self._unframe else body))

    def _take_pieces(self) -> bytes:
        body, self._pieces = b"".join(self._pieces), []
        return body

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.closed = True
        if self._client is not None:
            if self._until_close and exc is None:
                if self._head is not None:  # an empty body
                    self._relay_head(self._client)
                self._finish()
            else:
                self.fail(EngineError("the engine closed the connection"))
        self._on_closed(self)

    def pause_reading(self) -> None:
        """The client is slow: let the engine's bytes wait in its own socket."""
        if not self._paused and not self.closed:
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """The client caught up."""
        if self._paused and not self.closed:
            self._paused = False
            self.active_at_s = self._loop.time()
            self.transport.resume_reading()

    @property
    def running(self) -> bool:
        """Whether an exchange is under way."""
        return self._client is not None

    @property
    def answering(self) -> bool:
        """Whether bytes of the answer have gone to the client."""
        return self._client is not None and self._head is None

    @property
    def received_any(self) -> bool:
        """Whether the engine sent a byte in this exchange."""
        return self._head is None or bool(self._head)

    @property
    def paused(self) -> bool:
        """Whether the client, not the engine, is what the exchange waits for."""
        return self._paused

    # llhttp's side

    def on_status(self, status: bytes) -> None:
        """The reason phrase."""
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A head is whole: of the answer, or a 1xx in front of it."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            return
        self._head_complete = True
        framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in self._headers)
        self._until_close = not framed and status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        """Part of the body, framing taken off."""
        self._body_begun = True
        if self._unframe:
            self._pieces.append(body)
        if self._scanner is not None and self._scanner.feed(body):
            self._scanner = None
            self._observer.on_first_token()

    def on_message_complete(self) -> None:
        """The end of the answer, or of a 1xx."""
        if not self._head_complete:
            self._informational += 1
            self._headers, self._reason = [], b""
            return
        if not self._until_close:
            self._complete = True
            self._reusable = self._parser.should_keep_alive()  # only known in this callback

    # ends

    def _finish(self) -> None:
        """The answer is whole and relayed."""
        reusable = self._reusable and not self.closed
        answer = Answer(self._parser.get_status_code(), self._before + self._last)
        self._release()
        if not reusable:
            self.transport.close()
        if not self._done.done():
            self._done.set_result(answer)

    def fail(self, error: EngineError) -> None:
        """End the exchange with an error and give the connection up."""
        if self._client is None:
            return
        if self._head is None:
            error = BrokenAnswerError(str(error))
        self._release()
        self.transport.abort()
        if not self._done.done():
            self._done.set_exception(error)

    def cancel(self) -> None:
        """Nobody wants the answer any more: cutting the connection aborts the request."""
        if self._client is not None:
            self._release()
            self.transport.abort()
            self._done.cancel()

    def _release(self) -> None:
        assert self._client is not None
        self._client.relay_from(None)
        self._client = None
        self.used = True
        if self._paused and not self.closed:
            self._paused = False
            self.transport.resume_reading()
