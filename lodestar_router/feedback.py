"""Joins decisions with their late labels and passes them on.

    decided     ─► the decision log: why did it go there?
    first token ─► trust in the model, residual tracker (seconds), trainer (minutes)
    end         ─► speed of decoding, length of answers
    overdue     ─► as a first token, with the time waited so far as a lower bound

A request is overdue when it has waited OVERDUE times its prediction, and again
whenever that has doubled. An engine that hangs answers nothing: bounds are all
there is to learn of it. They are looked for when a request is decided, which is
when they matter. Streams only: elsewhere nobody sees the first token.

In       Decision at dispatch, Outcome at first token and at the end.
Out      training rows offered to the trainer, corrections to the tracker, answers to
         `Decoding`, the log.
Cost     O(log open requests) per call; nothing here waits.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lodestar_router.core.types import Decision, Ending, Outcome, RoutedRequest
from lodestar_router.explain import explain
from lodestar_router.features.decoding import Answer, Decoding
from lodestar_router.features.rates import work_tokens
from lodestar_router.features.residual_tracker import ResidualTracker, prediction_error
from lodestar_router.features.row import TrainingRow, training_row
from lodestar_router.features.trust import TrustGate, judge

_LOG_LENGTH = 512  # decisions kept for /debug/decisions
OVERDUE = 2.0  # times the prediction: fewer than one in twenty are late by as much


@dataclass(slots=True)
class _Open:
    """A request under way."""

    request: RoutedRequest
    decision: Decision
    number: int
    outcomes: list[Outcome]  # shared with the log


class RouterFeedback:
    """Implements the proxy's Feedback."""

    def __init__(
        self,
        tracker: ResidualTracker,
        offer: Callable[[TrainingRow], None],
        *,
        clock: Callable[[], float],
        decoding: Decoding | None = None,
        trust: TrustGate | None = None,
        overdue: float = OVERDUE,
    ) -> None:
        """`overdue` is in times of the prediction; infinity: no bounds are learned from waiting."""
        self._tracker = tracker
        self.trust = trust  # None: no model is served
        self.decoding = decoding  # None: nobody wants to know how fast engines decode
        self._patience = overdue
        self._offer = offer
        self._clock = clock
        self._entries: deque[tuple[RoutedRequest, Decision, list[Outcome]]] = deque(
            maxlen=_LOG_LENGTH
        )
        self._open: dict[int, _Open] = {}
        self._overdue: list[tuple[float, int, Decision]] = []  # a heap: when, which
        self._decided = 0
        self._answers: dict[int, Answer] = {}  # under way

    def decided(self, request: RoutedRequest, decision: Decision) -> None:
        """Keep the decision for the log; its outcomes are added as they come."""
        self._decided += 1
        opened = _Open(request, decision, self._decided, [])
        self._entries.append((request, decision, opened.outcomes))
        self._open[id(decision)] = opened
        if request.stream and decision.predicted_ttft_s is not None:
            patience_s = self._patience * float(decision.predicted_ttft_s[decision.chosen])
            heapq.heappush(self._overdue, (request.now_s + patience_s, opened.number, decision))
        if self._overdue and self._overdue[0][0] <= request.now_s:
            self._learn_of_overdue(self._clock())

    def observed(self, request: RoutedRequest, decision: Decision, outcome: Outcome) -> None:
        """Learn from a first token, or from an end that came before it."""
        self._answer(request, decision, outcome)
        opened = self._open.get(id(decision))
        if opened is None:
            return
        labelled = bool(opened.outcomes)  # its first token was observed before
        opened.outcomes.append(outcome)
        if outcome.ending is not None:
            del self._open[id(decision)]
            if labelled or outcome.ending is Ending.MOVED:
                return
        self._learn(opened, outcome)

    def _learn_of_overdue(self, now_s: float) -> None:
        while self._overdue and self._overdue[0][0] <= now_s:
            _, number, decision = heapq.heappop(self._overdue)
            opened = self._open.get(id(decision))
            if opened is None or opened.outcomes:
                continue
            waited_s = now_s - opened.request.now_s
            self._learn(
                opened,
                Outcome(
                    request_id=opened.request.request_id,
                    engine_id=decision.engine_id,
                    ending=None,
                    ttft_s=None,
                    waited_s=waited_s,
                ),
            )
            heapq.heappush(self._overdue, (now_s + waited_s, number, decision))

    def _learn(self, opened: _Open, outcome: Outcome) -> None:
        """A label, or a bound, for the trainer and the tracker."""
        request, decision = opened.request, opened.decision
        if outcome.ttft_s is None and not request.stream:
            return
        work = work_tokens(request, decision.candidates[decision.chosen])
        row = training_row(decision, outcome, work, opened.number)
        if row is not None:
            self._offer(row)
            self._correct(decision, row)

    def _correct(self, decision: Decision, row: TrainingRow) -> None:
        error = prediction_error(decision, row.ttft_s)
        now_s = self._clock()
        if error is None:
            return
        if self.trust is not None and not row.censored:
            judge(self.trust, decision, row.ttft_s)
        if not row.censored or error > self._tracker.value(row.engine_id, now_s):
            self._tracker.observe(row.engine_id, error, now_s)

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
