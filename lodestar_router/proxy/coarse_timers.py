"""Calls at about a time, for what is nearly always cancelled before it comes.

One timer of the loop serves all: setting and cancelling one of its own costs a request 3 us.

In       times of the loop's clock.
Out      calls, up to GRAIN_S late, never early; none after `cancel`.
Cost     0.6 us per call; a turn of the loop per GRAIN_S at most, while any is due. One that
         is cancelled is dropped at its time, what it would have called at once.
"""

import asyncio
import heapq
from collections.abc import Callable
from math import inf

GRAIN_S = 0.005


class CoarseCall:
    """One call to come."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """It is not to come; it may have."""
        self.callback = None

    def __call__(self) -> None:
        """It is time."""
        if self.callback is not None:
            self.callback()


class CoarseTimers:
    """All calls to come of one loop."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, CoarseCall]] = []  # a heap: when, which
        self._made = 0
        self._looks_at_s = inf
        self._look_timer: asyncio.Handle | None = None

    def __len__(self) -> int:
        """How many are kept, those included that were cancelled before their time."""
        return len(self._calls)

    def call_at(self, at_s: float, callback: Callable[[], None]) -> CoarseCall:
        """Have `callback` called at `at_s`."""
        call = CoarseCall(callback)
        self._made += 1
        heapq.heappush(self._calls, (at_s, self._made, call))
        if at_s + GRAIN_S < self._looks_at_s:
            self._look_at(at_s + GRAIN_S)
        return call

    def _look_at(self, at_s: float) -> None:
        if self._look_timer is not None:
            self._look_timer.cancel()
        self._looks_at_s = at_s
        self._look_timer = asyncio.get_running_loop().call_at(at_s, self._look)

    def _look(self) -> None:
        calls, loop = self._calls, asyncio.get_running_loop()
        now_s = loop.time()
        self._looks_at_s, self._look_timer = inf, None
        while calls and calls[0][0] <= now_s:
            call = heapq.heappop(calls)[2]
            if call.callback is not None:
                loop.call_soon(call)  # by the loop, which one that fails does not stop
        if calls:
            self._look_at(calls[0][0] + GRAIN_S)
