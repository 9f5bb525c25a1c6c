"""How many requests of one model are under way, and who waits for a place.

    enter ─► a place is free and nobody waits ─► run
         ├─► room in the queue ─► wait, first come first served ─► run
         │                          └─► too long, or the client left
         └─► refuse

In       the model of each request; its end.
Out      places, handed from one that ends to the one that has waited longest.
Cost     O(1); a client that leaves while it waits takes its entry with it.
Errors   OverloadedError with the seconds after which to try again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

from lodestar_router.errors import OverloadedError
from lodestar_router.proxy.metrics import GaugeRow, Metrics

_RETRY_AFTER_S = (1, 60)  # whatever the estimate says
_PACE_WEIGHT = 0.1  # of the newest of the times between two ends


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """For each model; a timeout of 0 is none."""

    running: int  # 0: no limit, and nobody waits
    queued: int
    queue_timeout_s: float


class Gate:
    """The places of one model."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ended_at_s: float | None = None
        self._pace_s = 0.0  # mean time between two ends
        self.running = 0
        self.waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    def hand_on(self) -> None:
        """One that ran has ended: its place is the next one's."""
        now_s = self._clock()
        if self._ended_at_s is not None:
            gap_s = now_s - self._ended_at_s
            self._pace_s += _PACE_WEIGHT * (gap_s - self._pace_s) if self._pace_s else gap_s
        self._ended_at_s = now_s
        self.pass_place()

    def pass_place(self) -> None:
        """Give a place that is not needed to who has waited longest."""
        while self.waiting:
            place, _ = self.waiting.popitem(last=False)
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1

    @property
    def retry_after_s(self) -> int:
        """When the queue of now will have gone through."""
        low, high = _RETRY_AFTER_S
        return min(max(ceil(self._pace_s * len(self.waiting)), low), high)


class Admission:
    """The gates of all models that have requests."""

    def __init__(
        self, limits: AdmissionLimits, *, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._gates: dict[str, Gate] = {}
        metrics.add_gauges(self._rows)

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self._limits.running > 0

    @property
    def waited_for(self) -> bool:
        """Whether anybody waits for a place."""
        return any(gate.waiting for gate in self._gates.values())

    async def enter(self, model: str) -> None:
        """Take a place, which `leave` gives back.

        Raises:
            OverloadedError: the queue is full, or the wait was too long.
        """
        gate = self._gates.get(model)
        if gate is None:
            gate = self._gates[model] = Gate(self._clock)
        if gate.running < self._limits.running:
            gate.running += 1
            return
        if len(gate.waiting) >= self._limits.queued:
            raise OverloadedError("too many requests for this model wait", gate.retry_after_s)
        began_s = self._clock()
        await self._wait(gate, model)
        self._metrics.queued(self._clock() - began_s)

    async def _wait(self, gate: Gate, model: str) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        gate.waiting[place] = None
        try:
            async with asyncio.timeout(self._limits.queue_timeout_s or None):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                gate.pass_place()  # it came in the same instant
            gate.waiting.pop(place, None)
            self._forget_if_empty(gate, model)
            if isinstance(error, TimeoutError):
                raise OverloadedError(
                    "the request waited too long for its turn", gate.retry_after_s
                ) from None
            raise

    def leave(self, model: str) -> None:
        """The request that had a place has ended."""
        gate = self._gates[model]
        gate.hand_on()
        self._forget_if_empty(gate, model)

    def _forget_if_empty(self, gate: Gate, model: str) -> None:
        # Names come from clients: what is not in use must leave nothing behind.
        if gate.running == 0 and not gate.waiting:
            self._gates.pop(model, None)

    def _rows(self) -> Iterator[GaugeRow]:
        for model, gate in self._gates.items():
            labels = {"model": model}
            yield (
                "lodestar:admitted_requests",
                "Requests of a model under way, where --max-concurrent limits them.",
                labels,
                gate.running,
            )
            yield (
                "lodestar:queued_requests",
                "Requests of a model that wait for one of these to end.",
                labels,
                len(gate.waiting),
            )
