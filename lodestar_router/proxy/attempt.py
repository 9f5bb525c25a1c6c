"""One request at one engine: what it took, what came of it.

Whatever way the attempt ends, `end` gives back the in-flight counts and the
reserved blocks exactly once, and tells the engine's circuit what it proved.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.circuit import Circuit
from lodestar_router.core.fleet import Ticket
from lodestar_router.core.prefix_index import PrefixIndex, Reservation
from lodestar_router.core.sse import Usage, usage_in
from lodestar_router.core.types import Decision, Ending, Outcome, RoutedRequest
from lodestar_router.errors import EngineError, EngineRefusedError
from lodestar_router.proxy.exchange import Answer, BrokenAnswerError
from lodestar_router.proxy.holding import Turn
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.stack_metrics import Account
from lodestar_router.proxy.verdict import Verdict, verdict_on, verdict_on_refusal


class Feedback(Protocol):
    """Who learns from decisions and their late labels."""

    def decided(self, request: RoutedRequest, decision: Decision) -> None:
        """A request is being sent where `decision` says."""

    def observed(self, request: RoutedRequest, decision: Decision, outcome: Outcome) -> None:
        """The first token came, or the request ended."""


class Attempt:
    """The observer of one exchange.

    Args:
        number: 1 for the first engine that is asked.
        refusals: statuses that another engine may improve on.
        turn: its place among the requests that wait for their engine.
        held_s: how long it has waited for other engines, before this decision.
        may_move: whether another engine shall be asked when this one refuses; pays for it.
    """

    def __init__(
        self,
        request: RoutedRequest,
        decision: Decision,
        prompt: Prompt | None,
        *,
        number: int,
        ticket: Ticket,
        reservation: Reservation | None,
        index: PrefixIndex,
        circuit: Circuit,
        feedback: Feedback,
        metrics: Metrics,
        account: Account,
        clock: Callable[[], float],
        refusals: frozenset[int],
        may_move: Callable[[EngineRefusedError], bool],
        turn: Turn | None,
        held_s: float = 0.0,
    ) -> None:
        self.refusals = refusals
        self._request = request
        self._decision = decision
        self._prompt = prompt
        self._number = number
        self._ticket = ticket
        self._reservation = reservation
        self._index = index
        self._circuit = circuit
        self._sent = circuit.sent(request.now_s)
        self._feedback = feedback
        self._metrics = metrics
        self._account = account
        self._clock = clock
        self._engine_id = decision.engine_id
        self._may_move = may_move
        self._turn = turn
        self._held_before_s = held_s
        self._status = 0
        self._refusal: Verdict | None = None
        self._ttft_s: float | None = None
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    def expect_first_token(self) -> None:
        """Without a stream nobody sees the first token: trust the prediction of it.

        Otherwise a long answer would count as a waiting prefill until its end.
        """
        predicted = self._decision.predicted_ttft_s
        if not self._request.stream and predicted is not None:
            waited_s = self._clock() - self._request.now_s
            delay_s = max(float(predicted[self._decision.chosen]) - waited_s, 0.0)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay_s, self._prefill_over)

    def _prefill_over(self) -> None:
        self._ticket.first_token()
        if self._turn is not None:
            self._turn.over()

    def on_refused(self, status: int, retry_after: bytes) -> EngineRefusedError | None:
        """The engine does not take it: an error if another engine shall be asked.

        A 429 without Retry-After says that the client, not the engine, is over a limit.
        """
        self._refusal = verdict_on_refusal(status, retry_after)
        error = EngineRefusedError(f"the engine answered {status}")
        limited = status == 429 and not retry_after
        return None if limited or not self._may_move(error) else error

    def on_head(self, status: int) -> list[bytes]:
        """The engine answered; the added headers say where it went and why."""
        self._status = status
        decision = self._decision
        lines = [
            b"x-request-id: " + self._request.request_id.encode("latin-1"),
            b"x-lodestar-engine: " + self._engine_id.encode(),
            b"x-lodestar-policy: " + decision.policy.encode(),
            b"x-lodestar-reason: " + decision.reason.encode(),
        ]
        if self._number > 1:
            lines.append(b"x-lodestar-attempts: %d" % self._number)
        if self._prompt is not None and self._prompt.tokens_known:
            cached_tokens = decision.candidates[decision.chosen].cached_prefix_tokens
            lines.append(b"x-lodestar-cached-tokens: %d" % cached_tokens)
        if decision.predicted_ttft_s is not None:
            predicted_ms = float(decision.predicted_ttft_s[decision.chosen]) * 1e3
            lines.append(b"x-lodestar-predicted-ttft-ms: %.1f" % predicted_ms)
        held_s = self._held_before_s + (0.0 if self._turn is None else self._turn.held_s)
        if held_s:
            lines.append(b"x-lodestar-held-ms: %.1f" % (held_s * 1e3))
        return lines

    def on_first_token(self) -> None:
        """The label is here, long before the end of the stream."""
        if self._status >= 400 or self._ended:
            return
        self._prefill_over()
        now_s = self._clock()
        self._ttft_s = now_s - self._request.now_s
        self._count_first_token(self._held_before_s + self._ttft_s)
        self._circuit.alive(self._sent, now_s)
        self._observe(None, now_s)

    def _count_first_token(self, ttft_s: float) -> None:
        self._metrics.first_token(self._decision, ttft_s)

    def end(
        self,
        ending: Ending,
        answer: Answer | None = None,
        error: EngineError | None = None,
        *,
        hurried: bool = False,
    ) -> None:
        """The attempt is over; later calls do nothing.

        Args:
            hurried: the client set limits of its own.
        """
        if self._ended:
            return
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._ticket.end()
        if self._turn is not None:
            self._turn.over()
        if self._reservation is not None:
            self._index.release(self._reservation, completed=ending is Ending.COMPLETED)
        self._metrics.ended(self._engine_id, ending)
        now_s = self._clock()
        self._judge(self._refusal or verdict_on(answer, error, hurried=hurried), now_s)
        latency_s = self._held_before_s + now_s - self._request.now_s
        self._account.ended(now_s, ending, latency_s=latency_s, error=_cause(error))
        whole = answer if ending is Ending.COMPLETED else None
        usage = None if whole is None else usage_in(whole.tail)
        output_tokens = None if whole is None else self._output_tokens(whole, usage)
        if whole is not None:
            self._count_tokens(now_s, usage, output_tokens)
        self._observe(ending, now_s, output_tokens)
        if self._prompt is not None and usage is not None:
            self._compare(self._prompt, usage)

    def _count_tokens(self, now_s: float, usage: Usage | None, output_tokens: int | None) -> None:
        """The engine's own counts, else the router's."""
        request = self._request
        input_tokens = request.prompt_tokens if request.tokens_known else None
        if usage is not None:
            input_tokens, output_tokens = usage.prompt_tokens, usage.completion_tokens
        self._account.answered(input_tokens, output_tokens)
        if self._ttft_s is not None:
            decode_s = now_s - request.now_s - self._ttft_s
            self._account.recent.decoded(now_s, decode_s=decode_s, tokens=output_tokens)

    def _output_tokens(self, answer: Answer, usage: Usage | None) -> int | None:
        """The engine's own count, else the events of the stream; None for several answers."""
        if self._request.num_answers != 1 or (self._prompt and not self._prompt.is_single):
            return None
        if usage is not None and usage.completion_tokens is not None:
            return usage.completion_tokens
        return answer.events - 1 if self._request.stream and answer.events > 1 else None

    def _judge(self, verdict: Verdict, now_s: float) -> None:
        if verdict.cause:
            self._metrics.engine_failed(self._engine_id, verdict.cause, broken=verdict.broken)
        if verdict.rest_s:
            self._circuit.rest(verdict.rest_s, now_s)
        if verdict.proves_nothing:
            self._circuit.left(self._sent)
        else:
            self._circuit.ended(self._sent, now_s, verdict.failure)

    def _observe(
        self, ending: Ending | None, now_s: float, output_tokens: int | None = None
    ) -> None:
        outcome = Outcome(
            request_id=self._request.request_id,
            engine_id=self._engine_id,
            ending=ending,
            ttft_s=self._ttft_s,
            waited_s=now_s - self._request.now_s,
            output_tokens=output_tokens,
            held_s=0.0 if self._turn is None else self._turn.held_s,
        )
        self._feedback.observed(self._request, self._decision, outcome)

    def _compare(self, prompt: Prompt, usage: Usage) -> None:
        """Hold the view of the engine's cache against the engine's own count."""
        # Of a batch of prompts vLLM reports the cached tokens of one.
        if usage.cached_tokens is None or not prompt.is_single:
            return
        engine_id = self._engine_id
        expected = self._decision.candidates[self._decision.chosen].cached_prefix_tokens
        self._index.correct(engine_id, prompt, usage.cached_tokens)
        if prompt.tokens_known:
            self._metrics.cached(
                engine_id, expected_tokens=expected, reported_tokens=usage.cached_tokens
            )


def _cause(error: EngineError | None) -> EngineError | None:
    """What was wrong, whenever it was."""
    return error.broken_by if isinstance(error, BrokenAnswerError) else error
