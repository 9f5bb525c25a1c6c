"""One connection to an engine: a request's bytes out, the answer's bytes through.

The answer's head is rewritten; its body is relayed as it came, framing
included, with no object per chunk. llhttp follows along to find the end of the
answer, and the body is looked at only until its first token.

    idle ─start()─► waiting for the head ─► relaying ─► idle (kept alive) or closed

Memory per exchange is bounded: a head by HEAD_BYTES, a body by what one read
brings, because a slow client stops the reading.
"""

import asyncio
import socket
from collections.abc import Callable, Collection, Sequence
from typing import cast

import httptools

from lodestar_router.core.sse import EventCounter, FirstTokenScanner, failure_in
from lodestar_router.errors import EngineError, EngineProtocolError, StaleConnectionError
from lodestar_router.proxy.answer_reader import HEAD_BYTES, AnswerReader
from lodestar_router.proxy.deadlines import Patience, Stopwatch
from lodestar_router.proxy.exchange import Answer, BrokenAnswerError, ExchangeObserver, Sink
from lodestar_router.proxy.last_words import last_words
from lodestar_router.proxy.messages import client_head
from lodestar_router.proxy.outbox import Outbox
from lodestar_router.proxy.read_pace import ReadPace

# Bounds what one read brings and what waits in the system for a slow client; without
# it both grow to megabytes. 16 MB/s at 2 ms to the engine is more than any answer needs.
_RECEIVE_BUFFER_BYTES = 32_768
_TAIL_BYTES = 4096  # kept of the last read while a slow client holds up the next


class EngineConnection(asyncio.Protocol):
    """The client side of one TCP connection; carries one exchange at a time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox,
        pace: ReadPace,
        on_closed: Callable[["EngineConnection"], None],
        hidden: Collection[bytes] = (),
    ) -> None:
        self._loop = loop
        self._outbox = outbox
        self._pace = pace
        self._on_closed = on_closed
        self._hidden = hidden  # headers that clients do not get
        self._reader = AnswerReader()
        self._client: Sink | None = None
        self.paused = self.closed = False  # paused for a slow client
        self.used = False  # carried an exchange before: the engine may be closing it just now
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = cast(asyncio.Transport, transport)
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)

    def start(
        self,
        request: Sequence[bytes],
        client: Sink,
        observer: ExchangeObserver,
        patience: Patience,
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
        self._events = EventCounter() if scan else None
        self.stream = scan
        self._unframe = http_1_0
        self._keep_alive = keep_alive
        self._reader.begin()
        self._head: bytes | None = b""  # received so far; None once relayed
        self._plain = False  # from here on bytes are relayed without being looked at
        self._before = self._last = b""
        self._done: asyncio.Future[Answer] = self._loop.create_future()
        self._heard = False
        self._watch = Stopwatch(patience, self._loop.time())
        self._request = request
        self._outbox.this_turn(self)
        return self._done

    def flush(self) -> None:
        """Send the request, unless nobody wants its answer any more."""
        request, self._request = self._request, ()
        if request and not self.transport.is_closing():
            self.transport.writelines(request)

    # asyncio's side

    def data_received(self, data: bytes) -> None:
        """Called by the loop: the path of every chunk."""
        client, reader = self._client, self._reader
        if client is None:  # an engine has nothing to say between exchanges
            self.transport.abort()
            return
        self._heard = True
        try:
            reader.feed(data)
        except httptools.HttpParserError as error:
            self.fail(EngineProtocolError(f"the engine's answer is malformed: {error}"))
            return
        if self._plain and not reader.complete:
            if self._events is not None:
                self._events.add(reader.bodies, len(data))
            reader.bodies.clear()
            self._before, self._last = self._last, data
            client.relay(data)
            self._pace.came(self)
        elif reader.overrun:
            self.fail(EngineProtocolError("the engine sent more than its answer"))
        else:
            self._read(reader, client, data)

    def _read(self, reader: AnswerReader, client: Sink, data: bytes) -> None:
        """Data that begins the answer, may bring its first token, or ends it."""
        body = b"".join(reader.bodies)
        reader.bodies.clear()
        first_token = self._scanner is not None and bool(body) and self._scanner.feed(body)
        if self._head is not None:
            self._head += data
            # vLLM sends a stream's head at once and its body with the first token: until
            # then another engine can still answer, so the client is sent nothing.
            if reader.head_complete and (body or reader.complete):
                if not self._accepted(reader, body):
                    return
                self._before, self._last = self._last, data
                self._relay_head(reader, client, body)
            elif len(self._head) > HEAD_BYTES:
                self.fail(EngineProtocolError("the engine's answer has no end of its head"))
                return
        else:
            self._before, self._last = self._last, data
            client.write(body if self._unframe else data)
        if first_token:
            self._scanner = None
            self._observer.on_first_token()
        if self._events is not None and self._scanner is None:
            self._events.look(body)
        if reader.complete:
            self._finish(reader)
        else:
            self._plain = self._head is None and self._scanner is None and not self._unframe

    def _accepted(self, reader: AnswerReader, body: bytes) -> bool:
        """False if the engine refused and another one is asked in its place."""
        status = reader.status
        if status == 200 and body.startswith(b'data: {"error"'):
            status = failure_in(body) or 200  # vLLM had sent its head when it failed
        if status not in self._observer.refusals:
            return True
        refusal = self._observer.on_refused(status, reader.retry_after)
        if refusal is None:
            return True
        if reader.complete and reader.keep_alive and not self.closed:
            self._release()
            self._done.set_exception(refusal)
        else:
            self.fail(refusal)
        return False

    def _relay_head(self, reader: AnswerReader, client: Sink, body: bytes) -> None:
        """The head is whole: send the client its own, with the body bytes behind it."""
        assert self._head is not None
        body_start = 0
        for _ in range(reader.informational + 1):
            body_start = self._head.index(b"\r\n\r\n", body_start) + 4
        framed_body, self._head = self._head[body_start:], None
        extra = self._observer.on_head(reader.status)
        if reader.chunked and not self._unframe:
            extra.append(b"transfer-encoding: chunked")
        if self._unframe or reader.until_close or not self._keep_alive:
            extra.append(b"connection: close")
            client.drain()  # only its end tells the client where the body ends
        if self._hidden:
            reader.headers = [item for item in reader.headers if item[0] not in self._hidden]
        head = client_head(reader.status, reader.reason, reader.headers, extra=extra)
        client.write(head + (body if self._unframe else framed_body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.closed = True
        client, reader = self._client, self._reader
        if client is not None:
            if not reader.until_close or exc is not None:
                kind = StaleConnectionError if self.used and self._head == b"" else EngineError
                self.fail(kind("the engine closed the connection"))
            elif self._head is None:
                self._finish(reader)
            elif self._accepted(reader, b""):  # its body is empty
                self._relay_head(reader, client, b"")
                self._finish(reader)
        self._on_closed(self)

    def pause_reading(self) -> None:
        """The client is slow: let the engine's bytes wait in its own socket."""
        if not self.paused and not self.closed:
            self.paused = True
            self._before, self._last = b"", self._last[-_TAIL_BYTES:]
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """The client caught up."""
        if self.paused and not self.closed:
            self.paused = False
            self._heard = True
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
    def completed(self) -> bool:
        """Whether the last exchange ended with a whole answer of status 200."""
        return self._client is None and self._reader.complete and self._reader.status == 200

    def check(self, now_s: float) -> bool:
        """Fail the exchange if it takes too long; whether body bytes came since the last check."""
        client = self._client
        if client is None:
            return False
        heard, self._heard = self._heard, False
        if heard:
            self._watch.heard(now_s)
        if self.paused and not self._watch.over(now_s):
            if self._watch.client_stalls(now_s, client.unsent_bytes):
                client.abort()
            return heard
        head = bool(self._head) and not self._reader.head_complete
        error = self._watch.late(now_s, answering=self._head is None, in_head=head)
        if error is not None:
            self.fail(error)
        return heard and self._head is None

    # ends

    def _finish(self, reader: AnswerReader) -> None:
        """The answer is whole and relayed."""
        events = 0 if self._events is None else self._events.count
        answer = Answer(reader.status, self._before + self._last, events)
        self._release()
        if self.closed or not reader.keep_alive:
            self.transport.close()
        if not self._done.done():
            self._done.set_result(answer)

    def fail(self, error: EngineError) -> None:
        """End the exchange with an error and give the connection up."""
        if self._client is None:
            return
        if self._head is None:
            words = last_words(error, self._reader, unframed=self._unframe, relayed=self._last)
            error = BrokenAnswerError(error, words)
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
        self._request = ()
        self.used = True
        self.resume_reading()
