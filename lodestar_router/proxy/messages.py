"""HTTP messages as the proxy sees them, and which headers may cross it.

Hop-by-hop headers (RFC 9110 §7.6.1), those that `Connection` nominates, and
those that the proxy sets itself do not cross. All header names are lower-case.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec

from lodestar_router.errors import OverloadedError, RouterError

Header = tuple[bytes, bytes]

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOT_TO_ENGINE = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"x-request-id"}
_LONG_BYTES = 16_384  # a copy takes longer than another part of a write
_NOT_TO_CLIENT = _HOP_BY_HOP | {b"x-request-id", b"server"}

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class Request(msgspec.Struct, frozen=True):
    """One whole client request."""

    method: bytes
    target: bytes  # path and query exactly as sent
    path: str  # without the query, percent-escapes untouched
    headers: Sequence[Header]
    fields: Mapping[bytes, bytes]  # the headers by name, as `first_of` has them
    body: bytes
    http_1_0: bool
    keep_alive: bool
    received_at_s: float  # monotonic, when its last byte was read
    client: str = ""  # the name of the key it bore; "" where clients need none

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header; `name` in lower case."""
        return self.fields.get(name)

    def with_headers(self, headers: Sequence[Header], client: str = "") -> "Request":
        """The same with other headers, of a client with this name."""
        return msgspec.structs.replace(
            self, headers=headers, fields=first_of(headers), client=client
        )


def first_of(headers: Sequence[Header]) -> dict[bytes, bytes]:
    """The first value of each header: asked for several names, a list takes longer."""
    return dict(reversed(headers))


def _nominated(connection: bytes) -> set[bytes]:
    """Header names that a `Connection` header declares to be hop-by-hop."""
    names = {token.strip().lower() for token in connection.split(b",")}
    return names - {b"close", b"keep-alive", b""}


def _crossing(headers: Sequence[Header], banned: frozenset[bytes]) -> list[bytes]:
    """The lines of headers that are neither banned nor nominated."""
    lines: list[bytes] = []
    for name, value in headers:
        if name not in banned:
            lines.append(name + b": " + value)
        elif name == b"connection" and (nominated := _nominated(value)) - banned:
            return _crossing(headers, banned | nominated)
    return lines


def engine_request(
    request: Request, *, host: bytes, path_prefix: bytes, extra: Sequence[bytes]
) -> Sequence[bytes]:
    """The bytes that ask an engine what the client asked, in parts.

    Args:
        host: the engine's `Host` header value.
        path_prefix: put before the client's target; empty for most engines.
        extra: whole header lines, without line ends.
    """
    lines = [
        request.method + b" " + path_prefix + request.target + b" HTTP/1.1",
        b"host: " + host,
        *_crossing(request.headers, _NOT_TO_ENGINE),
        b"content-length: %d" % len(request.body),
        *extra,
        b"\r\n",
    ]
    head, body = b"\r\n".join(lines), request.body
    return (head, body) if len(body) > _LONG_BYTES else (head + body,)


def client_head(
    status: int, reason: bytes, headers: Sequence[Header], *, extra: Sequence[bytes]
) -> bytes:
    """The head of an engine's answer as the client gets it.

    Framing headers (content-length, transfer-encoding, connection) are the
    caller's to give in `extra`, except content-length, which crosses.
    """
    lines = [
        b"HTTP/1.1 %d " % status + (reason or _REASONS.get(status, b"")),
        *_crossing(headers, _NOT_TO_CLIENT),
        *extra,
        b"\r\n",
    ]
    return b"\r\n".join(lines)


def response(
    status: int,
    body: bytes,
    *,
    content_type: bytes = b"application/json",
    headers: Sequence[Header] = (),
    close: bool = False,
) -> bytes:
    """A whole response of the router's own."""
    lines = [
        b"HTTP/1.1 %d " % status + _REASONS.get(status, b""),
        b"content-type: " + content_type,
        b"content-length: %d" % len(body),
        *(name + b": " + value for name, value in headers),
        *([b"connection: close"] if close else []),
        b"\r\n",
    ]
    return b"\r\n".join(lines) + body


_ERROR_TYPES = {
    400: "invalid_request_error",
    404: "not_found_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
}


def error_body(status: int, message: str, code: str) -> bytes:
    """An OpenAI error object (https://platform.openai.com/docs/guides/error-codes)."""
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return msgspec.json.encode(
        {"error": {"message": message, "type": kind, "param": None, "code": code}}
    )


_OF_STATUS: Mapping[int, tuple[Header, ...]] = {
    HTTPStatus.UNAUTHORIZED: ((b"www-authenticate", b"Bearer"),),
    HTTPStatus.SERVICE_UNAVAILABLE: ((b"retry-after", b"1"),),
}


def error_response(error: RouterError, *, close: bool = False, request_id: str = "") -> bytes:
    """The answer to a request that the router itself refuses or fails.

    Args:
        request_id: told in a header, if the request got as far as to have one.
    """
    status = error.status_hint
    headers = _OF_STATUS.get(status, ())
    if isinstance(error, OverloadedError):
        headers = ((b"retry-after", b"%d" % error.retry_after_s),)
    if request_id:
        headers = (*headers, (b"x-request-id", request_id.encode()))
    return response(
        status, error_body(status, str(error), error.code), headers=headers, close=close
    )
