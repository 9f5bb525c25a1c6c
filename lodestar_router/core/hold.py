"""Requests that wait at the router until their engine can begin them.

    enter ─► the engine's queue is short, or it is not known ─► go
         └─► else wait ─► the engine's queue is short ─► the one of highest rank goes
                      └─► waited `max_s` ─► go

    queue_i = seconds until i has begun all that it was sent, by the predicted prefill work
    rank    = (waited + PATIENCE_S) / (work + WORK_FLOOR_S)

An engine serves its queue first come, first served, and a request once sent cannot be
overtaken. Of those that wait here the shortest goes first, unless another has waited
for long: that lowers the mean of all, at the cost of the longest, which patience bounds.
Requests of one client keep their order, and nobody overtakes a request whose prefix it
counts on: it would compute that prefix itself. An engine gets its next request before it has
finished the last one (LOOK_AHEAD_S), so that no step of it goes with an empty place.

In       what is sent, its predicted work, first tokens, ends; time as an argument.
Out      the numbers of the requests that are to be sent now, in order.
Cost     O(requests that wait for the engine) per call; nothing for an engine without any.
Errors   none: numbers that are not known are ignored.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from lodestar_router.core.types import EngineId

PATIENCE_S = 1.0  # as long again as a prompt of the usual 2,000 tokens takes to compute
WORK_FLOOR_S = 0.005  # what a request costs that has all of its prompt cached
# The step under way and one more of 2,048 tokens take about as long on a mid-range GPU:
# with less, steps have places that nobody takes; with more, less is left to choose among.
LOOK_AHEAD_S = 0.2
_NEVER = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSettings:
    """How long, and how many."""

    max_s: float  # 0: nobody waits
    max_requests: int = 256  # per engine; further ones are sent at once


USUAL = HoldSettings(max_s=10.0)  # the default of --hold-max


class Held(Struct, eq=False):
    """A request that waits."""

    number: int
    arrived_at_s: float
    work_s: float  # of prefill that it adds on its engine
    uncached_tokens: int  # the same, 1 at least, as the fleet counts it
    client: str | None  # None: nobody's order is to be kept
    keys: Sequence[Any] = ()  # of the prompt's blocks, each chained to those before it
    cached_blocks: int = 0  # of them, expected in the engine's cache
    after: frozenset[int] = frozenset()  # who must go first; set by the queue

    def rank(self, now_s: float) -> float:
        """Who goes first; see the module."""
        return rank(now_s - self.arrived_at_s, self.work_s)

    def counts_on(self, other: "Held") -> bool:
        """Whether part of what it expects to be cached is yet to be computed by `other`."""
        last = self.cached_blocks - 1
        return (
            other.cached_blocks <= last < min(len(other.keys), len(self.keys))
            and other.keys[last] == self.keys[last]
        )


def rank(waited_s: float, work_s: float) -> float:
    """Higher goes first."""
    return (waited_s + PATIENCE_S) / (work_s + WORK_FLOOR_S)


@dataclass(slots=True)
class _Gate:
    """One engine: what it was sent and has not begun to answer, who waits for it."""

    sent: dict[int, float] = field(default_factory=dict)  # number -> work
    busy_until_s: float = 0.0
    waiting: list[Held] = field(default_factory=list)

    def send(self, number: int, work_s: float, now_s: float) -> None:
        self.sent[number] = work_s
        self.busy_until_s = max(self.busy_until_s, now_s) + work_s

    def opens_at_s(self) -> float:
        return self.busy_until_s - LOOK_AHEAD_S


class HoldQueue:
    """All engines' gates."""

    def __init__(self, settings: HoldSettings) -> None:
        self.settings = settings
        self._gates: dict[EngineId, _Gate] = {}
        self._at: dict[int, EngineId] = {}  # of every request that waits or is being computed
        self.holds = 0  # how many wait

    def enter(self, engine_id: EngineId, held: Held, now_s: float, *, at_once: bool) -> bool:
        """A request was given to an engine; whether it goes now.

        Args:
            at_once: it must, because nothing is known of the engine's queue, or it has
                been elsewhere already.
        """
        gate = self._gates.get(engine_id)
        if gate is None:
            gate = self._gates[engine_id] = _Gate()
        self._at[held.number] = engine_id
        if (
            at_once
            or len(gate.waiting) >= self.settings.max_requests
            or (gate.opens_at_s() <= now_s and not gate.waiting)
        ):
            gate.send(held.number, held.work_s, now_s)
            return True
        held.after = frozenset(a.number for a in gate.waiting if held.counts_on(a))
        gate.waiting.append(held)
        self.holds += 1
        return False

    def over(self, number: int, now_s: float) -> list[int]:
        """Its first token came, or it ended, or its client left; who goes now."""
        engine_id = self._at.pop(number, None)
        if engine_id is None:
            return []
        gate = self._gates[engine_id]
        if gate.sent.pop(number, None) is None:
            gate.waiting = [held for held in gate.waiting if held.number != number]
            self.holds -= 1
        else:
            gate.busy_until_s = now_s + sum(gate.sent.values())
        return self.due(engine_id, now_s)

    def due(self, engine_id: EngineId, now_s: float) -> list[int]:
        """Who goes now, because time has passed."""
        gate = self._gates.get(engine_id)
        if gate is None:
            return []
        going: list[int] = []
        while gate.waiting:
            held = self._next(gate, now_s)
            if held is None:
                return going
            gate.waiting.remove(held)
            self.holds -= 1
            gate.send(held.number, held.work_s, now_s)
            going.append(held.number)
        if not gate.sent:
            del self._gates[engine_id]
        return going

    def _next(self, gate: _Gate, now_s: float) -> Held | None:
        oldest = gate.waiting[0]  # they stand in order of arrival
        if self._overdue_at_s(oldest) <= now_s:
            return oldest
        if gate.opens_at_s() > now_s:
            return None
        numbers = {held.number for held in gate.waiting}
        clients: set[str] = set()  # of those who came before
        free: list[Held] = []
        for held in gate.waiting:
            if held.client not in clients and numbers.isdisjoint(held.after):
                free.append(held)
            if held.client is not None:
                clients.add(held.client)
        return max(free, key=lambda held: held.rank(now_s))

    def _overdue_at_s(self, held: Held) -> float:
        # One sum for both who asks when and who asks whether: a difference would round otherwise.
        return held.arrived_at_s + self.settings.max_s

    def due_at_s(self, engine_id: EngineId) -> float:
        """When `due` is to be asked at the latest; infinity if nobody waits."""
        gate = self._gates.get(engine_id)
        if gate is None or not gate.waiting:
            return _NEVER
        return min(gate.opens_at_s(), self._overdue_at_s(gate.waiting[0]))

    def release(self, engine_id: EngineId) -> list[int]:
        """Everybody who waits for the engine goes: it is down, or not known any more."""
        gate = self._gates.get(engine_id)
        if gate is None:
            return []
        going = [held.number for held in gate.waiting]
        for held in gate.waiting:
            gate.sent[held.number] = held.work_s
        self.holds -= len(gate.waiting)
        gate.waiting.clear()
        return going

    def behind_tokens(self, engine_id: EngineId, uncached_tokens: int, now_s: float) -> int:
        """Uncached tokens of those who would go after a newcomer with so many of its own."""
        gate = self._gates.get(engine_id)
        if gate is None or not gate.waiting:
            return 0
        some = gate.waiting[0]
        own = rank(0.0, uncached_tokens * some.work_s / some.uncached_tokens)
        return sum(held.uncached_tokens for held in gate.waiting if held.rank(now_s) < own)

    def waiting(self) -> Iterator[tuple[EngineId, int]]:
        """How many wait, per engine that anybody waits for."""
        for engine_id, gate in self._gates.items():
            if gate.waiting:
                yield engine_id, len(gate.waiting)
