"""From a client's bytes to whole requests, within limits.

HTTP is parsed by llhttp (httptools), which refuses what two parsers may read in two
ways: a length beside chunks, line ends and white space out of place, unknown codings.

In       bytes as they come.
Out      `deliver` with each request and its size, in order; `invite` when a client waits to
         be asked for its body (100-continue).
Cost     a request is held until its last byte, within `Limits`.
Errors   RequestError, after which no byte of the connection can be trusted;
         httptools.HttpParserUpgrade after a CONNECT.

An offer of another protocol (Java's client and `curl --http2` make one with every request) is
declined by reading the request as if it had not been made: llhttp's binding skips its body.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import httptools

from lodestar_router.errors import (
    ExpectationError,
    HeadTooLargeError,
    RequestError,
    TooLargeError,
    UrlTooLongError,
)
from lodestar_router.proxy.messages import Header, Request, first_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may make the router hold."""

    body_bytes: int = 64 * 1024 * 1024  # a 1M-token prompt is about 6 MiB of JSON
    head_bytes: int = 65_536  # nginx allows 4 x 8 KiB, Go 1 MiB
    header_count: int = 256  # as vLLM
    target_bytes: int = 8192  # as nginx
    head_s: float = 60.0  # as nginx
    pipelined_bytes: int = 1024 * 1024  # read while an earlier request still runs


class RequestReader:
    """Reads the requests of one connection."""

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float],
        *,
        deliver: Callable[[Request, int], None],
        invite: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._most_bytes, self._most_headers = limits.head_bytes, limits.header_count
        self._clock = clock
        self._deliver = deliver
        self._invite = invite
        self._parser = httptools.HttpRequestParser(self)
        self.last = False  # the request that is read is to be the connection's last one
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._begun_at_s = 0.0
        self._headers: list[Header] = []
        self._fields: dict[bytes, bytes] = {}
        self._http_1_0 = False
        self._head_bytes = 0
        self._head_complete = False
        self._heard_before = self._unfinished_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._refusal: RequestError | None = None
        self._offers = False  # another protocol

    @property
    def begun(self) -> bool:
        """Whether part of a request is here."""
        return self._head_bytes > 0

    def overdue(self, now_s: float) -> bool:
        """Whether the head of a request has been coming for too long, byte after byte."""
        waits = self.begun and not self._head_complete
        return waits and now_s - self._begun_at_s > self._limits.head_s

    def feed(self, data: bytes | memoryview) -> None:
        """Take what was read."""
        while True:
            try:
                if self._offers:
                    self._decline()
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as offer:
                if not self._offers:
                    raise
                data = memoryview(data)[offer.args[0] :]
            except httptools.HttpParserError as error:
                raise self._refusal or RequestError(f"malformed HTTP request: {error}") from error
        self._bound_unfinished(len(data))

    def _decline(self) -> None:
        """Begin the request anew without its offer; what follows its head comes next."""
        version, method = self._parser.get_http_version().encode(), self._parser.get_method()
        fields = (b"%s: %s\r\n" % field for field in self._headers if field[0] != b"upgrade")
        head = b"%s %s HTTP/%s\r\n%s\r\n" % (method, self._target, version, b"".join(fields))
        self._parser = httptools.HttpRequestParser(self)
        self._reset()
        self._parser.feed_data(head)

    def _bound_unfinished(self, read_bytes: int) -> None:
        """llhttp's binding keeps a header until its end, of which nobody hears before."""
        heard = self._head_bytes + self._body_bytes
        if heard and heard == self._heard_before:
            self._unfinished_bytes += read_bytes
            self._check_head(self._unfinished_bytes)
        else:
            self._unfinished_bytes = 0
        self._heard_before = heard

    def on_url(self, url: bytes) -> None:
        """Part of the request target."""
        if not self._target:
            self._begun_at_s = self._clock()
        self._target += url
        self._head_bytes += len(url)
        if self._head_bytes > self._limits.target_bytes:
            self._raise(UrlTooLongError(f"the URL passes {self._limits.target_bytes} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer, which is nobody's business and is dropped."""
        headers = self._headers
        if not self._head_complete:
            headers.append((name.lower(), value))
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._most_bytes or len(headers) > self._most_headers:
            self._check_head(self._head_bytes)

    def _check_head(self, size_bytes: int) -> None:
        limits = self._limits
        if size_bytes > limits.head_bytes:
            self._raise(HeadTooLargeError(f"the headers pass {limits.head_bytes} bytes"))
        if len(self._headers) > limits.header_count:
            self._raise(HeadTooLargeError(f"there are more than {limits.header_count} headers"))

    def on_headers_complete(self) -> None:
        """The head is whole: refuse what is known to be too large, invite the rest."""
        self._head_complete = True
        fields = self._fields = first_of(self._headers)
        if b"upgrade" in fields and self._parser.should_upgrade():
            self._offers = True
            return
        version = self._parser.get_http_version()
        if version != "1.1":
            if version != "1.0":
                self._raise(RequestError("malformed HTTP request: neither HTTP/1.1 nor HTTP/1.0"))
            self._http_1_0 = True
        # llhttp takes no second length.
        if int(fields.get(b"content-length", 0)) > self._limits.body_bytes:
            self._raise_too_large()
        if b"expect" in fields:
            self._check_expectations()
            self._invite()

    def _check_expectations(self) -> None:
        for name, value in self._headers:
            if name == b"expect" and value.lower() != b"100-continue":
                self._raise(ExpectationError("only 100-continue can be expected"))

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._raise_too_large()
        self._body.append(body)

    def _raise_too_large(self) -> None:
        limit_bytes = self._limits.body_bytes
        self._raise(TooLargeError(f"the request's body passes the limit of {limit_bytes} bytes"))

    def _raise(self, refusal: RequestError) -> NoReturn:
        self._refusal = refusal
        raise refusal

    def on_message_complete(self) -> None:
        """A whole request is here, or the head of one with an offer."""
        if self._offers:
            return
        parser, http_1_0 = self._parser, self._http_1_0
        request = Request(
            method=parser.get_method(),
            target=self._target,
            path=self._target.partition(b"?")[0].decode("latin-1"),
            headers=self._headers,
            fields=self._fields,
            body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
            http_1_0=http_1_0,
            keep_alive=parser.should_keep_alive() and not http_1_0 and not self.last,
            received_at_s=self._clock(),
        )
        size_bytes = self._head_bytes + self._body_bytes
        self._reset()
        self._deliver(request, size_bytes)
