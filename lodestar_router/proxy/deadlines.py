"""How long an exchange may take, and what a client may say about it.

    connect      until a connection to the engine is open
    first byte   from the request to the first byte of the answer's body
    idle         between two parts of the answer, and while the client reads none of it
    total        from the client's request to the end of the answer, retries included

Nothing is set or cancelled per chunk: a connection notes that bytes came, a
sweep over all running exchanges looks every `SWEEP_S` and compares. So a limit
may take effect up to two sweeps late.

A client may shorten or lengthen its own, up to the operator's limit, with
`x-request-timeout` (total), `x-first-byte-timeout` and `x-idle-timeout`, in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from msgspec import Struct

from lodestar_router.errors import (
    DeadlineError,
    EngineError,
    EngineProtocolError,
    EngineTimeoutError,
    RequestError,
)

SWEEP_S = 0.25
# The sweep itself came this late: the process stood still, and what engines sent
# meanwhile has not been read yet. Nobody is blamed for that.
STOOD_STILL_S = 2.0

_TOTAL, _FIRST_BYTE, _IDLE = b"x-request-timeout", b"x-first-byte-timeout", b"x-idle-timeout"
_HEADERS = frozenset({_TOTAL, _FIRST_BYTE, _IDLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The operator's, in seconds; 0 means no limit."""

    connect_s: float
    first_byte_s: float
    idle_s: float
    total_s: float
    client_max_s: float = 3600.0  # what a client may ask for at most
    # From the first byte of an answer's head to its last. Servers send it in one piece;
    # one that does not is broken or hostile.
    head_s: float = 10.0


class Patience(Struct, frozen=True, kw_only=True):
    """What holds for one request; `inf` means no limit."""

    first_byte_s: float
    idle_s: float
    ends_at_s: float  # when its total is over
    head_s: float
    wished: bool = False  # by the client: missing them is no fault of the engine


class Patiences:
    """Who may wait how long: the operator's limits with each client's own wishes."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._usual = _patience(timeouts, {}, received_at_s=0.0, stream=True)

    def of(self, fields: Mapping[bytes, bytes], *, received_at_s: float, stream: bool) -> Patience:
        """That of one request.

        Raises:
            RequestError: a wish is no positive number of seconds.
        """
        if _HEADERS.isdisjoint(fields) and self._usual.ends_at_s == inf:
            return self._usual
        wishes = {
            name: _seconds(name, fields[name], self._timeouts.client_max_s)
            for name in _HEADERS & fields.keys()
        }
        return _patience(self._timeouts, wishes, received_at_s=received_at_s, stream=stream)


def _patience(
    timeouts: Timeouts, wishes: Mapping[bytes, float], *, received_at_s: float, stream: bool
) -> Patience:
    total_s = wishes.get(_TOTAL, timeouts.total_s)
    first_byte_s = wishes.get(_FIRST_BYTE, timeouts.first_byte_s)
    # An answer that is not streamed comes whole, at its end.
    if _TOTAL in wishes and _FIRST_BYTE not in wishes and first_byte_s and not stream:
        first_byte_s = max(first_byte_s, total_s)
    return Patience(
        first_byte_s=first_byte_s or inf,
        idle_s=wishes.get(_IDLE, timeouts.idle_s) or inf,
        ends_at_s=received_at_s + (total_s or inf),
        head_s=timeouts.head_s or inf,
        wished=bool(wishes),
    )


def _seconds(name: bytes, value: bytes, limit_s: float) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < inf:
        raise RequestError(f"{name.decode()} must be a positive number of seconds")
    return min(seconds, limit_s)


class Stopwatch:
    """The time that one exchange takes at one engine."""

    __slots__ = ("_head_from_s", "_patience", "_quiet_from_s", "_started_s", "_unsent_bytes")

    def __init__(self, patience: Patience, now_s: float) -> None:
        self._patience = patience
        self._started_s = self._quiet_from_s = now_s
        self._head_from_s: float | None = None
        self._unsent_bytes = -1

    def heard(self, now_s: float) -> None:
        """Bytes came since the last look."""
        self._quiet_from_s = now_s

    def over(self, now_s: float) -> bool:
        """Whether the request's whole time is up."""
        return now_s > self._patience.ends_at_s

    def client_stalls(self, now_s: float, unsent_bytes: int) -> bool:
        """Whether the client that the engine has to wait for has read nothing for too long."""
        if unsent_bytes != self._unsent_bytes:
            self._unsent_bytes, self._quiet_from_s = unsent_bytes, now_s
        return now_s - self._quiet_from_s > self._patience.idle_s

    def late(self, now_s: float, *, answering: bool, in_head: bool) -> EngineError | None:
        """What to fail the exchange with, if it takes too long.

        Args:
            answering: the client has been sent the answer's beginning.
            in_head: part of the answer's head is here.
        """
        patience = self._patience
        if now_s > patience.ends_at_s:
            return DeadlineError("the request took longer than it may take")
        if answering:
            if now_s - self._quiet_from_s > patience.idle_s:
                return EngineTimeoutError("the engine stopped sending")
        elif now_s - self._started_s > patience.first_byte_s:
            return EngineTimeoutError("the engine did not answer in time")
        elif in_head:
            if self._head_from_s is None:
                self._head_from_s = now_s
            elif now_s - self._head_from_s > patience.head_s:
                return EngineProtocolError("the engine did not end its answer's head")
        return None
