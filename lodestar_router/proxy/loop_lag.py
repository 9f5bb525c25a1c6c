"""How late the event loop is, and whether it can take on more work.

A loop that is behind is late for everybody: for the streams that run and for
/health. What is refused in time costs little and can be answered elsewhere.

    lag = max(how late a timer fires, how long one turn of the loop takes)

One long turn is no overload: only a lag that lasts over several samples counts.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from lodestar_router.errors import RouterBusyError
from lodestar_router.proxy.metrics import GaugeRow, Metrics

_EVERY_S = 0.1
_SAMPLES = 3


class LoopLag:
    """Samples the lag while `watch` runs.

    Args:
        bound_s: the lag that is too much; 0 for none.
    """

    def __init__(
        self, bound_s: float, *, metrics: Metrics | None = None, clock: Callable[[], float]
    ) -> None:
        self._bound_s = bound_s
        self._clock = clock
        self._samples: deque[float] = deque([0.0] * _SAMPLES, maxlen=_SAMPLES)
        self._too_much = False
        if metrics is not None:
            metrics.add_gauges(self._rows)

    async def watch(self) -> None:
        """Sample until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._next()
        try:
            await self._loop.create_future()
        finally:
            self._timer.cancel()

    # Callbacks: a coroutine that sleeps twice takes several times as long.

    def _next(self) -> None:
        self._due_s = self._clock() + _EVERY_S
        self._timer: asyncio.Handle = self._loop.call_later(_EVERY_S, self._woken)

    def _woken(self) -> None:
        self._woken_s = self._clock()
        self._timer = self._loop.call_soon(self._turned)

    def _turned(self) -> None:
        late_s, turn_s = self._woken_s - self._due_s, self._clock() - self._woken_s
        self.sampled(max(late_s, turn_s, 0.0))
        self._next()

    def sampled(self, lag_s: float) -> None:
        """One measurement."""
        self._samples.append(lag_s)
        self._too_much = 0 < self._bound_s < min(self._samples)

    def check(self) -> None:
        """Do nothing if there is time for more.

        Raises:
            RouterBusyError: there is not.
        """
        if self._too_much:
            raise RouterBusyError("the router has more work than time")

    def _rows(self) -> Iterator[GaugeRow]:
        yield (
            "lodestar:loop_lag_seconds",
            "How late the event loop is; the highest of the latest samples.",
            {},
            max(self._samples),
        )
