"""Follows an engine's answers through llhttp: where the head ends, where the body ends.

One per connection, for all its exchanges. The parser appends pieces of body to
`bodies` by itself, with no Python call per chunk; the reader of them clears it.
"""

from contextlib import suppress

import httptools

from lodestar_router.errors import EngineProtocolError
from lodestar_router.proxy.messages import Header

# A head that passes this is not one; the same for what comes after it without being body.
HEAD_BYTES = 65_536


class AnswerReader:
    """What llhttp made of the bytes of one answer so far."""

    __slots__ = (
        "_parser", "bodies", "chunked", "complete", "content_type", "encoded", "feed",
        "head_complete", "headers", "informational", "keep_alive", "on_body", "overrun",
        "reason", "retry_after", "status", "until_close",
    )  # fmt: skip

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.on_body = self.bodies.append
        self._parser = httptools.HttpResponseParser(self)
        self.feed = self._parser.feed_data
        self.begin()

    def begin(self) -> None:
        """Forget the last answer."""
        self.bodies.clear()
        self.headers: list[Header] = []
        self.reason = b""
        self.status = 0
        self.informational = 0  # 1xx heads in front of the final one
        self.head_complete = self.complete = self.keep_alive = False
        self.overrun = False  # something follows the answer that nobody asked for
        self.chunked = self.until_close = False
        self.encoded = False
        self.content_type = self.retry_after = b""

    def rest_of_chunk(self) -> int:
        """How many bytes the chunk lacks that was cut off; 0 between chunks.

        The parser says so itself: newlines are data within a chunk and an error
        anywhere else. It cannot be used afterwards.
        """
        self.bodies.clear()
        with suppress(httptools.HttpParserError):
            self.feed(b"\n" * HEAD_BYTES)
        return sum(map(len, self.bodies))

    @property
    def is_event_stream(self) -> bool:
        """Whether its body is server-sent events, in plain text."""
        return self.content_type.startswith(b"text/event-stream") and not self.encoded

    # llhttp's side

    def on_message_begin(self) -> None:
        """An answer begins: this one, the next after a 1xx, or one too many."""
        self.overrun = self.complete

    def on_status(self, status: bytes) -> None:
        """The reason phrase."""
        self.reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; trailers cross with the body."""
        if not self.head_complete:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A head is whole: of the answer, or a 1xx in front of it."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            return
        self.head_complete, self.status = True, status
        framed = status in (204, 304)
        for name, value in self.headers:
            if name == b"content-length":
                framed = True
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked":
                    raise EngineProtocolError("an unknown transfer encoding")
                framed = self.chunked = True
            elif name == b"content-type":
                self.content_type = value.lower()
            elif name == b"content-encoding":
                self.encoded = value.lower() != b"identity"
            elif name == b"retry-after":
                self.retry_after = value
        self.until_close = not framed

    def on_message_complete(self) -> None:
        """The end of the answer, or of a 1xx."""
        if not self.head_complete:
            self.informational += 1
            self.headers, self.reason = [], b""
        elif not self.until_close:
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()  # only known in this callback
