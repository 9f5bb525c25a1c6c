"""Late binding: the waits and wake-ups around core.hold.

In       decided requests; first tokens and ends; what the fleet believes of engines.
Out      each request's turn; gauges of who waits.
Cost     a dict entry per request; a future and a timer only for those that wait.
Errors   EngineUnreachableError when the engine is lost while the request waits for it:
         it was sent nothing, so another engine is asked at no cost.
         MovedError when another engine could begin it now and would be chosen.
         DeadlineError when the request's own time is up.

Nobody waits for an engine whose load report is missing or older than STALE_S: then its
queue is not known, and neither is what others send it. That is asked again at every look.
"""

import asyncio
from collections.abc import Callable, Iterator
from math import inf

from msgspec import Struct

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.held import Held
from lodestar_router.core.hold import HoldQueue, HoldSettings
from lodestar_router.core.types import Arm, Decision, EngineId, RoutedRequest
from lodestar_router.errors import DeadlineError, EngineError, EngineUnreachableError
from lodestar_router.proxy.metrics import GaugeRow, Metrics

STALE_S = 1.0  # four polls of /metrics
_LOOK_EVERY_S = 0.25  # an engine may be lost, or fall silent, while nothing else happens


class MovedError(Exception):
    """The request waits no more for its engine: it is to be decided anew."""


class _Waiting(Struct, eq=False):
    """A request that waits."""

    turn: asyncio.Future[bool]  # true: decide anew
    engine_id: EngineId
    would_move: Callable[[EngineId], bool]


class Turn:
    """One request's place; `over` gives it back, as often as it is called."""

    __slots__ = ("_engine_id", "_holding", "_is_over", "_number", "held_s")

    def __init__(self, holding: "Holding", number: int, engine_id: EngineId) -> None:
        self._holding = holding
        self._number = number
        self._engine_id = engine_id
        self._is_over = False
        self.held_s = 0.0  # how long it waited

    async def come(self, ends_at_s: float) -> None:
        """Return once the request is to be sent; the module says what is raised instead."""
        self.held_s = await self._holding.wait(self._number, self._engine_id, ends_at_s)

    def over(self) -> None:
        """The first token is here, or there will be none."""
        if not self._is_over:
            self._is_over = True
            self._holding.over(self._number, self._engine_id)


class Holding:
    """All requests between their decision and their first token."""

    def __init__(
        self,
        settings: HoldSettings,
        *,
        fleet: Fleet,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self.queue = HoldQueue(settings)
        self._fleet = fleet
        self._metrics = metrics
        self._clock = clock
        self._entered = 0
        self._waiting: dict[int, _Waiting] = {}
        self._looks: dict[EngineId, tuple[float, asyncio.Handle]] = {}  # when, and how to stop it
        metrics.add_gauges(self._rows)

    def enter(
        self,
        routed: RoutedRequest,
        decision: Decision,
        prompt: Prompt | None,
        *,
        again: bool,
        would_move: Callable[[EngineId], bool],
        held_s: float = 0.0,
    ) -> Turn | None:
        """A request was given to an engine; None where its prefill cannot be foreseen.

        Args:
            again: another engine has failed it, so it has waited enough.
            would_move: whether it would rather be given to that engine by now.
            held_s: how long it has waited for other engines.
        """
        if decision.work_s is None:
            return None
        self._entered += 1
        number, now_s = self._entered, self._clock()
        candidate = decision.candidates[decision.chosen]
        engine_id = candidate.engine.engine_id
        cached_tokens = candidate.cached_prefix_tokens
        size = candidate.engine.block_size_tokens
        held = Held(
            number=number,
            arrived_at_s=now_s - held_s,
            work_s=decision.work_s[decision.chosen],
            uncached_tokens=max(routed.prompt_tokens - cached_tokens, 1),
            client=routed.session_id,
            keys=prompt.keys(size)[0] if prompt is not None and size else (),
            cached_blocks=cached_tokens // size if size else 0,
        )
        # The learned policy does not steer the fallback's requests, not even in time.
        at_once = again or decision.arm is Arm.FALLBACK or self._stale(engine_id, now_s)
        if not self.queue.enter(engine_id, held, now_s, at_once=at_once):
            turn = asyncio.get_running_loop().create_future()
            self._waiting[number] = _Waiting(turn, engine_id, would_move)
            self._look_later(engine_id)
        return Turn(self, number, engine_id)

    async def wait(self, number: int, engine_id: EngineId, ends_at_s: float) -> float:
        """See Turn.come; returns the seconds that it took."""
        waiting = self._waiting.get(number)
        if waiting is None:
            return 0.0
        began_s = self._clock()
        try:
            async with asyncio.timeout(None if ends_at_s == inf else ends_at_s - began_s):
                moves = await waiting.turn
        except TimeoutError:
            raise DeadlineError("the request took longer than it may take") from None
        finally:
            self._waiting.pop(number, None)
            held_s = self._clock() - began_s
            self._metrics.held(engine_id, held_s)
        if moves:
            raise MovedError
        return held_s

    def over(self, number: int, engine_id: EngineId) -> None:
        """See Turn.over."""
        self.queue.over(number, self._clock())
        self._give_turn(engine_id)
        self._look_later(engine_id)

    def _look(self, engine_id: EngineId) -> None:
        self._looks.pop(engine_id, None)
        if self._lost(engine_id):
            lost = EngineUnreachableError("the engine was lost before the request was sent")
            self._wake(self.queue.release(engine_id), lost)
        elif self._stale(engine_id, self._clock()):
            self._wake(self.queue.release(engine_id))
        else:
            self._give_turn(engine_id)
        self._look_later(engine_id)

    def _give_turn(self, engine_id: EngineId) -> None:
        """Let the next go if the engine can begin it; who comes from another is one of them."""
        if not self._offer(engine_id):
            self._wake(self.queue.due(engine_id, self._clock()))

    def _offer(self, engine_id: EngineId) -> bool:
        """Have one decided anew that waits for another engine and prefers this one now."""
        now_s = self._clock()
        if not self.queue.holds or self._lost(engine_id) or self._stale(engine_id, now_s):
            return False
        for number in self.queue.movable(engine_id, now_s):
            waiting = self._waiting.get(number)
            if waiting is None or waiting.turn.done() or not waiting.would_move(engine_id):
                continue
            waiting.turn.set_result(True)
            self.queue.over(number, now_s)
            self._look_later(waiting.engine_id)
            return True
        return False

    def _wake(self, numbers: list[int], error: EngineError | None = None) -> None:
        for number in numbers:
            waiting = self._waiting.get(number)
            if waiting is None or waiting.turn.done():
                continue
            if error is None:
                waiting.turn.set_result(False)
            else:
                waiting.turn.set_exception(error)

    def _lost(self, engine_id: EngineId) -> bool:
        if engine_id not in self._fleet:
            return True
        state = self._fleet[engine_id]
        return bool(state.trouble) or not state.circuit.clear

    def _stale(self, engine_id: EngineId, now_s: float) -> bool:
        load = self._fleet[engine_id].load
        return load is None or now_s - load.observed_at_s > STALE_S

    def _look_later(self, engine_id: EngineId) -> None:
        due_at_s = self.queue.due_at_s(engine_id)
        if due_at_s == inf:
            return
        due_in_s = due_at_s - self._clock()
        loop = asyncio.get_running_loop()
        when_s = loop.time() + min(max(due_in_s, 0.0), _LOOK_EVERY_S)
        look = self._looks.get(engine_id)
        if look is not None and look[0] <= when_s:
            return
        if look is not None:
            look[1].cancel()
        # What is due at once is no timer under uvloop, and does not know when it is due.
        self._looks[engine_id] = when_s, loop.call_at(when_s, self._look, engine_id)

    def _rows(self) -> Iterator[GaugeRow]:
        for engine_id, count in self.queue.waiting():
            yield (
                "lodestar:held_requests",
                "Requests that wait at the router for this engine to begin them.",
                {"engine": str(engine_id)},
                count,
            )
