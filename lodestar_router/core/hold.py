"""Requests that wait at the router until their engine can begin them.

    enter ─► the engine has begun all that it was sent, or that is not known ─► go
         └─► all but nothing is to be computed ─► go
         └─► else wait ─► it has ─► the one of highest rank goes
                      └─► waited `max_s` ─► go
                      └─► another engine is free, and better by now ─► decided anew

An engine has begun what it was sent when the predicted prefill work has had its time, and
at the latest when all first tokens have come. Sent 0.02 and 0.05 s earlier, mean TTFT was 1.04
and 1.03 times as long, 0.05 s later 1.4 times (five cells of perf.routing, one seed).

An engine serves its queue first come, first served, and a request once sent can neither be
overtaken nor go elsewhere: what waits here can do both. Who goes first: held.py. Requests
of one client keep their order, and nobody overtakes a request whose prefix it counts on: it
would compute that prefix itself. An engine that could begin another request is offered those
that wait for others first (`movable`), then the next of its own goes: whoever asks compares
the two engines for them, and decides anew for one that would move. Where an engine offered its
turn to four at most, when nobody waited for it, mean TTFT was 1.003 [0.996, 1.010] times as long
(33 cells, five seeds).

In       what is sent, its predicted work, first tokens, ends; time as an argument.
Out      the numbers of the requests that are to be sent now, in order; what is in the way of one
         more: tokens computed by now, tokens of those who would go after it.
Cost     O(requests that wait for the engine) per call; nothing for an engine without any.
Errors   none: numbers that are not known are ignored.
"""

import math
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import nlargest

from lodestar_router.core.held import WORK_FLOOR_S, Held, rank
from lodestar_router.core.types import EngineId

# A look compares two engines for MOST_LOOKED_AT requests at most, 0.1 ms each: all of them could
# take a sixth of a core. Near the knee perf.routing has 12 to 15 comparisons a second.
LOOKS_PER_S = 100.0
MOST_LOOKED_AT = 16
# Whatever holds up an engine that has not begun to answer in time will do so for some more.
LEFT_WHEN_LATE = 0.25
_NEVER = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSettings:
    """How long, and how many."""

    max_s: float  # 0: nobody waits
    max_requests: int = 256  # per engine; further ones are sent at once


USUAL = HoldSettings(max_s=10.0)  # the default of --hold-max


@dataclass(slots=True)
class _Gate:
    """One engine: what it was sent and has not begun to answer, who waits for it."""

    sent: dict[int, Held] = field(default_factory=dict)  # by number
    work_s: float = 0.0  # of all that was sent
    tokens: int = 0  # likewise, uncached
    since_s: float = 0.0  # when it began what it computes now
    busy_until_s: float = 0.0
    waiting: list[Held] = field(default_factory=list)  # first come first

    def send(self, held: Held, now_s: float) -> None:
        if not self.sent:
            self.since_s = now_s
        self._add(held)
        self.busy_until_s = max(self.busy_until_s, now_s) + held.work_s

    def send_all(self) -> list[int]:
        """Who waits goes, whatever is foreseen."""
        going = [held.number for held in self.waiting]
        for held in self.waiting:
            self._add(held)
        self.waiting.clear()
        return going

    def _add(self, held: Held) -> None:
        self.sent[held.number] = held
        self.work_s += held.work_s
        self.tokens += held.uncached_tokens

    def over(self, number: int, now_s: float) -> bool:
        """One that was sent has begun to be answered, or has ended; false if it waits."""
        held = self.sent.pop(number, None)
        if held is None:
            return False
        self.work_s = self.work_s - held.work_s if self.sent else 0.0  # no error adds up for ever
        self.tokens -= held.uncached_tokens
        self.since_s, self.busy_until_s = now_s, now_s + self.work_s
        return True

    def computed_tokens(self, now_s: float) -> int:
        passed_s = now_s - self.since_s
        left_s = max(self.work_s - passed_s, LEFT_WHEN_LATE * passed_s)
        return int(self.tokens * (1.0 - left_s / self.work_s)) if left_s < self.work_s else 0

    def begins_another(self, now_s: float) -> bool:
        """Whether a newcomer would go at once."""
        return self.busy_until_s <= now_s and not self.waiting

    def lets_pass(self, held: Held) -> bool:
        """Whether it is so short that it would be the next anyway, and may be."""
        if held.work_s > WORK_FLOOR_S or held.after:
            return False
        return held.client is None or all(other.client != held.client for other in self.waiting)

    def free(self) -> list[Held]:
        """Who waits and need not let another go first: no earlier one of its client, and
        nobody whose prefix it counts on."""
        numbers = {held.number for held in self.waiting}
        clients: set[str] = set()  # of those who came before
        free: list[Held] = []
        for held in self.waiting:
            if held.client not in clients and numbers.isdisjoint(held.after):
                free.append(held)
            if held.client is not None:
                clients.add(held.client)
        return free

    def movable(self) -> list[Held]:
        """Of the free those that nobody else counts on."""
        counted_on = frozenset[int]().union(*(held.after for held in self.waiting))
        return [held for held in self.free() if held.number not in counted_on]


class HoldQueue:
    """All engines' gates."""

    def __init__(self, settings: HoldSettings) -> None:
        self.settings = settings
        self._gates: dict[EngineId, _Gate] = {}
        self._at: dict[int, EngineId] = {}  # of every request that waits or is being computed
        self.holds = 0  # how many wait
        self._next_look_s = 0.0

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
        held.after = frozenset(a.number for a in gate.waiting if held.counts_on(a))
        if (
            at_once
            or len(gate.waiting) >= self.settings.max_requests
            or gate.begins_another(now_s)
            or gate.lets_pass(held)
        ):
            gate.send(held, now_s)
            return True
        insort(gate.waiting, held, key=lambda other: other.arrived_at_s)
        self.holds += 1
        return False

    def over(self, number: int, now_s: float) -> None:
        """Its first token came, or it ended, or it waits for its engine no more."""
        engine_id = self._at.pop(number, None)
        if engine_id is None:
            return
        gate = self._gates[engine_id]
        if not gate.over(number, now_s):
            gate.waiting = [held for held in gate.waiting if held.number != number]
            self.holds -= 1

    def due(self, engine_id: EngineId, now_s: float) -> list[int]:
        """Who of those that wait for the engine goes now."""
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
            gate.send(held, now_s)
            going.append(held.number)
        if not gate.sent:
            del self._gates[engine_id]
        return going

    def _next(self, gate: _Gate, now_s: float) -> Held | None:
        oldest = gate.waiting[0]
        if self._overdue_at_s(oldest) <= now_s:
            return oldest
        if gate.busy_until_s > now_s:
            return None
        return max(gate.free(), key=lambda held: held.rank(now_s))

    def _overdue_at_s(self, held: Held) -> float:
        # One sum for both who asks when and who asks whether: a difference would round otherwise.
        return held.arrived_at_s + self.settings.max_s

    def movable(self, engine_id: EngineId, now_s: float) -> list[int]:
        """Who waits for other engines, if this one could begin another request now.

        Those of the highest rank; none if that was asked too often lately.
        """
        if not self.holds or self._next_look_s > now_s:
            return []
        own = self._gates.get(engine_id)
        if own is not None and own.busy_until_s > now_s:
            return []
        self._next_look_s = now_s + 1.0 / LOOKS_PER_S
        gates = [gate for gate in self._gates.values() if gate is not own]
        others = [held for gate in gates for held in gate.movable()]
        first = nlargest(MOST_LOOKED_AT, others, key=lambda held: held.rank(now_s))
        return [held.number for held in first]

    def due_at_s(self, engine_id: EngineId) -> float:
        """When `due` is to be asked at the latest; infinity if nobody waits."""
        gate = self._gates.get(engine_id)
        if gate is None or not gate.waiting:
            return _NEVER
        return min(gate.busy_until_s, self._overdue_at_s(gate.waiting[0]))

    def release(self, engine_id: EngineId) -> list[int]:
        """Everybody who waits for the engine goes: it is down, or not known any more."""
        gate = self._gates.get(engine_id)
        if gate is None:
            return []
        self.holds -= len(gate.waiting)
        return gate.send_all()

    def computed_tokens(self, engine_id: EngineId, now_s: float) -> int:
        """Uncached tokens of what was sent there and has no first token that are computed by now.

        As foreseen: the work has gone on since the last first token, or since it was sent to
        an idle engine. One that is late has LEFT_WHEN_LATE of the time again before it.
        """
        gate = self._gates.get(engine_id)
        return 0 if gate is None else gate.computed_tokens(now_s)

    def behind_tokens(
        self, engine_id: EngineId, uncached_tokens: int, now_s: float, waited_s: float = 0.0
    ) -> int:
        """Uncached tokens of those who would go after one with so many of its own.

        Args:
            waited_s: how long it has waited, elsewhere too.
        """
        gate = self._gates.get(engine_id)
        if gate is None or not gate.waiting:
            return 0
        some = gate.waiting[0]
        own = rank(waited_s, uncached_tokens * some.work_s / some.uncached_tokens)
        return sum(held.uncached_tokens for held in gate.waiting if held.rank(now_s) < own)

    def waiting(self) -> Iterator[tuple[EngineId, int]]:
        """How many wait, per engine that anybody waits for."""
        for engine_id, gate in self._gates.items():
            if gate.waiting:
                yield engine_id, len(gate.waiting)
