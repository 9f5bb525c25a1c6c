"""Keeps an engine's answer for the router, in a client's place.

In       head and body as an EngineConnection relays them to a client of HTTP/1.0: without
         framing. A new exchange begins anew.
Out      status, headers and body once the exchange has ended.
Errors   of an answer of more than LIMIT_BYTES nothing more is kept; `too_large` says so.
"""

from lodestar_router.proxy.exchange import Pausable
from lodestar_router.proxy.messages import Header, response

LIMIT_BYTES = 64 * 1024 * 1024  # one token; with the log probabilities of a prompt, megabytes

_OF_FRAMING = frozenset({b"connection", b"content-length", b"transfer-encoding"})


class Collector:
    """Implements Sink."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def write(self, data: bytes) -> None:
        """Keep a part."""
        self._size_bytes += len(data)
        if self._size_bytes <= LIMIT_BYTES:
            self._parts.append(data)

    def relay(self, data: bytes) -> None:
        """The same: nothing is sent, so nothing is spared."""
        self.write(data)

    def relay_from(self, source: Pausable | None) -> None:
        """What came before belongs to an exchange that failed."""
        if source is not None:
            self._parts, self._size_bytes = [], 0

    def drain(self) -> None:
        """There is nothing behind an answer that is kept."""

    def abort(self) -> None:
        """Nothing to give up."""

    @property
    def unsent_bytes(self) -> int:
        """It is never slow."""
        return 0

    @property
    def too_large(self) -> bool:
        """Whether the answer was more than is kept."""
        return self._size_bytes > LIMIT_BYTES

    @property
    def body(self) -> bytes:
        """The body without framing."""
        return b"".join(self._parts).partition(b"\r\n\r\n")[2]

    def as_response(self, status: int, *, close: bool) -> bytes:
        """The answer for a client, with a length."""
        head, _, body = b"".join(self._parts).partition(b"\r\n\r\n")
        headers: list[Header] = []
        content_type = b"application/json"
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b": ")
            if name == b"content-type":
                content_type = value
            elif name not in _OF_FRAMING:
                headers.append((name, value))
        return response(status, body, content_type=content_type, headers=headers, close=close)
