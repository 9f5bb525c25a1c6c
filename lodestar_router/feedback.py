"""Joins decisions with their late labels and passes them on.

    decided     ─► the decision log: why did it go there?
    first token ─► residual tracker (seconds), trainer (minutes)
    end         ─► speed of decoding, length of answers

In       Decision at dispatch, Outcome at first token and at the end.
Out      training rows offered to the trainer, corrections to the tracker, answers to
         `Decoding`, the log.
Cost     O(1) per call; nothing here waits.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from lodestar_router.core.types import Decision, Outcome, RoutedRequest
from lodestar_router.explain import explain
from lodestar_router.features.decoding import Answer, Decoding
from lodestar_router.features.rates import work_tokens
from lodestar_router.features.residual_tracker import ResidualTracker, prediction_error
from lodestar_router.features.row import TrainingRow, training_row

_LOG_LENGTH = 512  # decisions kept for /debug/decisions


class RouterFeedback:
    """Implements the proxy's Feedback."""

    def __init__(
        self,
        tracker: ResidualTracker,
        offer: Callable[[TrainingRow], None],
        *,
        clock: Callable[[], float],
        decoding: Decoding | None = None,
    ) -> None:
        self._tracker = tracker
        self.decoding = decoding  # None: nobody wants to know how fast engines decode
        self._offer = offer
        self._clock = clock
        self._entries: deque[tuple[RoutedRequest, Decision, list[Outcome]]] = deque(
            maxlen=_LOG_LENGTH
        )
        self._open: dict[int, list[Outcome]] = {}
        self._answers: dict[int, Answer] = {}  # under way

    def decided(self, request: RoutedRequest, decision: Decision) -> None:
        """Keep the decision for the log; its outcomes are added as they come."""
        outcomes: list[Outcome] = []
        self._entries.append((request, decision, outcomes))
        self._open[id(decision)] = outcomes

    def observed(self, request: RoutedRequest, decision: Decision, outcome: Outcome) -> None:
        """Learn from a first token, or from an end that came before it."""
        self._answer(request, decision, outcome)
        outcomes = self._open.get(id(decision))
        labelled = bool(outcomes)  # its first token was observed before
        if outcomes is not None:
            outcomes.append(outcome)
        if outcome.ending is not None:
            self._open.pop(id(decision), None)
            if labelled:
                return
        if outcome.ttft_s is not None:
            error = prediction_error(decision, outcome.ttft_s)
            if error is not None:
                self._tracker.observe(decision.engine_id, error, self._clock())
        row = training_row(
            decision, outcome, work_tokens(request, decision.candidates[decision.chosen])
        )
        if row is not None:
            self._offer(row)

    def _answer(self, request: RoutedRequest, decision: Decision, outcome: Outcome) -> None:
        """Let `Decoding` follow the answer from its first token to its end."""
        if self.decoding is None:
            return
        now_s = self._clock()
        if outcome.ending is None:
            candidate = decision.candidates[decision.chosen]
            self._answers[id(decision)] = self.decoding.first_token(request, candidate, now_s)
            return
        if outcome.output_tokens is not None:
            self.decoding.counted(request, outcome.output_tokens)
        if (answer := self._answers.pop(id(decision), None)) is not None:
            self.decoding.ended(answer, outcome.output_tokens, now_s)

    def log(self) -> list[dict[str, Any]]:
        """The latest decisions, newest last, in plain values."""
        return [explain(*entry) for entry in self._entries]
