"""What one engine did lately, kept in slots so that neither rate nor window cost memory.

In       arrivals and ends as they happen, in order of time.
Out      rates and means over the last `window_s` seconds, to a sixtieth of it.
Cost     0.2 us per call; sixty slots per engine at most.
"""

from collections import deque
from dataclasses import dataclass

from msgspec import Struct

_SLOTS = 60


class _Slot(Struct, eq=False):
    """Sums over one sixtieth of the window."""

    number: int
    arrived: int = 0
    ended: int = 0
    latency_s: float = 0.0
    decoded: int = 0
    decode_s: float = 0.0
    spaced: int = 0
    gap_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Over the window; None where nothing ended that would tell."""

    per_s: float  # arrivals
    latency_s: float | None  # mean of requests that ended, from dispatch to last byte
    decode_s: float | None  # mean from first token to last, of streams
    gap_s: float | None  # mean over streams of their mean time between tokens


class Recent:
    """See the module."""

    __slots__ = ("_began_s", "_slots", "_width_s")

    def __init__(self, window_s: float, now_s: float) -> None:
        self._width_s = window_s / _SLOTS
        self._began_s = now_s
        self._slots: deque[_Slot] = deque()

    def arrived(self, now_s: float) -> None:
        """A request was sent to the engine."""
        self._slot(now_s).arrived += 1

    def ended(self, now_s: float, *, latency_s: float) -> None:
        """A request of it ended, answered or failed."""
        slot = self._slot(now_s)
        slot.ended += 1
        slot.latency_s += latency_s

    def decoded(self, now_s: float, *, decode_s: float, tokens: int | None) -> None:
        """A stream of it came to its end; so many tokens, if they were counted."""
        slot = self._slot(now_s)
        slot.decoded += 1
        slot.decode_s += decode_s
        if tokens is not None and tokens > 1:
            slot.spaced += 1
            slot.gap_s += decode_s / (tokens - 1)

    def figures(self, now_s: float) -> Figures:
        """As of now."""
        self._forget(now_s)
        slots = self._slots
        window_s = _SLOTS * self._width_s
        known_s = min(window_s, max(now_s - self._began_s, self._width_s))
        return Figures(
            per_s=sum(slot.arrived for slot in slots) / known_s,
            latency_s=_mean(sum(s.latency_s for s in slots), sum(s.ended for s in slots)),
            decode_s=_mean(sum(s.decode_s for s in slots), sum(s.decoded for s in slots)),
            gap_s=_mean(sum(s.gap_s for s in slots), sum(s.spaced for s in slots)),
        )

    def _slot(self, now_s: float) -> _Slot:
        number = int(now_s / self._width_s)
        slots = self._slots
        if not slots or slots[-1].number < number:
            self._forget(now_s)
            slots.append(_Slot(number))
        return slots[-1]

    def _forget(self, now_s: float) -> None:
        oldest = int(now_s / self._width_s) - _SLOTS + 1
        while self._slots and self._slots[0].number < oldest:
            self._slots.popleft()


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None
