"""An engine model that runs in real time: a step takes as long as it says.

    step at t, sleep until t + duration, hand out what the step brought, next step

A step begins where the one before ended, not when the sleep returned, so late
wake-ups do not add up to a slower engine.

In       EngineModel, requests, aborts.
Out      Progress per request; StepResult and ended requests to the listeners.
Cost     a step of the model, one sleep, and about 0.5 us per token.
Errors   RequestError from submit; what a listener raises ends run().

The only clock is the one passed in. All calls belong to one event loop.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from lodestar_router.emulator.engine_model import EngineModel, StepResult
from lodestar_router.emulator.sequence import EmulatedRequest
from lodestar_router.emulator.sequence import Sequence as EngineSequence

# Behind by more, the host is overloaded: the engine then is slower, which shows
# as `lag_s`, instead of running its steps in bursts.
_MOST_LAG_S = 0.1


class Progress:
    """How far one request has come; `changed` is called after every step that moves it."""

    __slots__ = ("changed", "ended_early", "finished", "last_token_at_s", "made", "sequence")

    def __init__(
        self, sequence: EngineSequence, changed: Callable[[], None], *, ended_early: bool
    ) -> None:
        self.sequence = sequence
        self.changed = changed
        self.ended_early = ended_early  # its last token is an end mark, not the length limit
        self.made = 0  # tokens a client can see
        self.finished = False
        self.last_token_at_s = 0.0


class Step(NamedTuple):
    """What listeners are told: the step, and its requests by what happened to them."""

    result: StepResult
    emitted: Sequence[Progress]
    first: Sequence[Progress]
    finished: Sequence[Progress]


class Listener(Protocol):
    """Hears of everything an engine does, when it has done it."""

    def stepped(self, step: Step) -> None:
        """A step has ended. `last_token_at_s` still tells each request's token before."""
        ...

    def aborted(self, progress: Progress) -> None:
        """A request was ended by its client."""
        ...


class RealTimeEngine:
    """One emulated engine at work."""

    def __init__(
        self, model: EngineModel, listeners: Sequence[Listener], *, clock: Callable[[], float]
    ) -> None:
        self.model = model
        self.clock = clock
        self.lag_s = 0.0  # seconds lost because the host was too slow
        self._listeners = listeners
        self._progress: dict[str, Progress] = {}
        self._wake = asyncio.Event()

    def submit(
        self, request: EmulatedRequest, changed: Callable[[], None], *, ended_early: bool = False
    ) -> Progress:
        """Queue a request.

        Raises:
            RequestError: it could never run here.
        """
        progress = Progress(self.model.add(request), changed, ended_early=ended_early)
        self._progress[request.request_id] = progress
        self._wake.set()
        return progress

    def abort(self, request_id: str) -> None:
        """End a request; one that has ended is left alone."""
        progress = self._progress.pop(request_id, None)
        if progress is None:
            return
        self.model.abort(request_id, self.clock())
        progress.finished = True
        for listener in self._listeners:
            listener.aborted(progress)
        # The run loop, if idle after this, says so to the listeners.
        self._wake.set()

    @property
    def requests(self) -> int:
        """Requests submitted and not ended."""
        return len(self._progress)

    def clear_prefix_cache(self) -> bool:
        """Forget all cached blocks; false, and nothing done, while requests run."""
        return self.model.clear_prefix_cache()

    async def run(self) -> None:
        """Step until cancelled."""
        at_s = self.clock()
        while True:
            late_s = self.clock() - at_s
            if late_s > _MOST_LAG_S:
                self.lag_s += late_s
                at_s += late_s
            result = self.model.step(at_s)
            if result is None:
                self._publish(self._idle(at_s))
                self._wake.clear()
                await self._wake.wait()
                at_s = self.clock()
                continue
            at_s = result.ended_at_s
            await asyncio.sleep(max(0.0, at_s - self.clock()))
            self._publish(result)

    def _publish(self, result: StepResult) -> None:
        progress = self._progress
        emitted = [one for sequence in result.emitted if (one := progress.get(sequence.request_id))]
        first = [one for sequence in result.first if (one := progress.get(sequence.request_id))]
        finished = [
            one for sequence in result.finished if (one := progress.pop(sequence.request_id, None))
        ]
        for one in finished:
            one.finished = True
        step = Step(result, emitted, first, finished)
        for listener in self._listeners:
            listener.stepped(step)
        for one in emitted:
            one.made += 1
            one.last_token_at_s = result.ended_at_s
            one.changed()

    def _idle(self, now_s: float) -> StepResult:
        """Nothing left to do: a step without work, for listeners that show the load."""
        model = self.model
        return StepResult(
            started_at_s=now_s,
            duration_s=0.0,
            emitted=(),
            first=(),
            finished=(),
            decodes=0,
            chunks=(),
            preempted=(),
            events=[],
            num_running_reqs=model.num_running_reqs,
            num_waiting_reqs=model.num_waiting_reqs,
            kv_cache_usage_ratio=model.kv_cache_usage_ratio,
            prefix_queries_tokens=0,
            prefix_hits_tokens=0,
        )
