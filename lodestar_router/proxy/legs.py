"""The two legs of a disaggregated request as attempts: what differs from a request of its own.

prefill   its answer is its first token: the label of prefill is the leg's own time,
          whether or not the client streams. Its one token is no length of an answer.
decode    the prompt counts as computed from the start. TTFT, for /metrics, is the client's:
          from the decision on the prefill leg. What the engine reports as cached is what
          the prefill engine found (vLLM 0.32), so it says nothing of this engine's cache.
          A 500 may mean that the prompt could not be fetched: then the engine is not
          blamed and computes the prompt itself.
"""

from typing import Any

from msgspec import Struct

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.sse import Usage
from lodestar_router.core.types import Decision, Ending, Leg, RoutedRequest
from lodestar_router.errors import EngineError, EngineRefusedError, HandoverError
from lodestar_router.proxy.attempt import Attempt
from lodestar_router.proxy.exchange import Answer
from lodestar_router.proxy.verdict import Verdict

_FETCH_FAILED = 500  # vLLM with kv_load_failure_policy=fail, its default


class PrefillReport(Struct, frozen=True, kw_only=True):
    """What the answer's headers say of the prefill leg."""

    begun_s: float  # when the first engine was chosen
    skipped: str = ""  # why the decode engine computes the prompt itself; "" if it does not
    decision: Decision | None = None
    prompt: Prompt | None = None
    took_s: float = 0.0

    def lines(self) -> list[bytes]:
        """Header lines for the client."""
        if self.skipped:
            return [b"x-lodestar-prefill-skipped: " + self.skipped.encode()]
        decision = self.decision
        if decision is None:
            return []
        lines = [
            b"x-lodestar-prefill-engine: " + decision.engine_id.encode(),
            b"x-lodestar-prefill-reason: " + decision.reason.encode(),
            b"x-lodestar-prefill-ms: %.1f" % (self.took_s * 1e3),
        ]
        chosen = decision.chosen
        if self.prompt is not None and self.prompt.tokens_known:
            cached_tokens = decision.candidates[chosen].cached_prefix_tokens
            lines.append(b"x-lodestar-cached-tokens: %d" % cached_tokens)
        if decision.predicted_ttft_s is not None:
            predicted_ms = float(decision.predicted_ttft_s[chosen]) * 1e3
            lines.append(b"x-lodestar-predicted-ttft-ms: %.1f" % predicted_ms)
        return lines


class PrefillAttempt(Attempt):
    """The prefill leg at one engine."""

    def on_first_token(self) -> None:
        """The answer itself says it, at its end."""

    def end(
        self,
        ending: Ending,
        answer: Answer | None = None,
        error: EngineError | None = None,
        *,
        hurried: bool = False,
    ) -> None:
        """The attempt is over; later calls do nothing."""
        if ending is Ending.COMPLETED:
            super().on_first_token()
        super().end(ending, answer, error, hurried=hurried)

    def _count_first_token(self, ttft_s: float) -> None:
        self._metrics.prefilled(self._decision, ttft_s)

    def _output_tokens(self, answer: Answer, usage: Usage | None) -> int | None:
        return None


class DecodeAttempt(Attempt):
    """What the client gets, at one engine: the decode leg, or all of a request without prefill.

    Args:
        report: what came of the prefill leg.
        may_redo: whether this engine can be asked without the prompt being handed over.
    """

    def __init__(
        self,
        request: RoutedRequest,
        decision: Decision,
        prompt: Prompt | None,
        *,
        report: PrefillReport,
        may_redo: bool,
        **parts: Any,
    ) -> None:
        super().__init__(request, decision, prompt, **parts)
        self._report = report
        self._handed_over = request.leg is Leg.DECODE
        self._may_redo = may_redo and self._handed_over
        if self._handed_over:
            self._ticket.first_token()
        if self._may_redo:
            self.refusals |= {_FETCH_FAILED}

    def on_refused(self, status: int, retry_after: bytes) -> EngineRefusedError | None:
        """A failure to fetch the prompt has the same engine asked again, for all of it."""
        if status != _FETCH_FAILED or not self._may_redo:
            return super().on_refused(status, retry_after)
        error = HandoverError("the engine failed, perhaps to fetch the computed prompt")
        if not self._may_move(error):
            return None
        self._refusal = Verdict(cause=HandoverError.cause, proves_nothing=True)
        return error

    def on_head(self, status: int) -> list[bytes]:
        """The headers of both legs."""
        lines = super().on_head(status)
        if self._handed_over:  # what is cached here is not what was expected to be cached
            lines = [line for line in lines if not line.startswith(b"x-lodestar-cached-tokens")]
        return lines + self._report.lines()

    def _count_first_token(self, ttft_s: float) -> None:
        earlier_s = self._request.now_s - self._report.begun_s
        self._metrics.first_token(self._decision, earlier_s + ttft_s)

    def _compare(self, prompt: Prompt, usage: Usage) -> None:
        if not self._handed_over:
            super()._compare(prompt, usage)
