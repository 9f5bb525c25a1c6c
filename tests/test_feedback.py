"""Labels join their decisions once, whatever comes first."""

from random import Random

from lodestar_router.core.types import Decision, Ending, EngineId, Outcome
from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.features.row import TrainingRow
from lodestar_router.feedback import RouterFeedback
from lodestar_router.policy.lodestar import LodestarPolicy
from tests.factories import candidate, request

A = EngineId("a")


def decided() -> tuple[RouterFeedback, ResidualTracker, list[TrainingRow], Decision]:
    rows: list[TrainingRow] = []
    tracker = ResidualTracker()
    feedback = RouterFeedback(tracker, rows.append, clock=lambda: 10.0)
    decision = LodestarPolicy(Random(0)).choose(
        request(prompt_tokens=1000), [candidate("a", inflight_prefill_tokens=500)]
    )
    feedback.decided(request(prompt_tokens=1000), decision)
    return feedback, tracker, rows, decision


def outcome(ending: Ending | None, ttft_s: float | None, waited_s: float = 2.0) -> Outcome:
    return Outcome(request_id="r", engine_id=A, ending=ending, ttft_s=ttft_s, waited_s=waited_s)


def test_a_first_token_is_one_row_and_the_end_of_its_stream_none() -> None:
    feedback, _, rows, decision = decided()

    feedback.observed(request(prompt_tokens=1000), decision, outcome(None, 0.5))
    feedback.observed(request(prompt_tokens=1000), decision, outcome(Ending.COMPLETED, 0.5))

    (row,) = rows
    assert (row.ttft_s, row.censored, row.work_tokens) == (0.5, False, 1500)
    assert decision.features is not None
    assert (row.features == decision.features[0]).all()


def test_a_request_cut_before_its_first_token_is_a_lower_bound() -> None:
    feedback, tracker, rows, decision = decided()

    feedback.observed(
        request(prompt_tokens=1000), decision, outcome(Ending.CANCELLED, None, waited_s=7.0)
    )

    (row,) = rows
    assert (row.ttft_s, row.censored) == (7.0, True)
    assert tracker.value(A, 10.0) == 0.0


def test_a_rejected_request_teaches_nothing() -> None:
    feedback, _, rows, decision = decided()

    feedback.observed(request(prompt_tokens=1000), decision, outcome(Ending.REJECTED, None))

    assert rows == []


def test_the_log_explains_a_decision_and_what_became_of_it() -> None:
    feedback, _, _, decision = decided()

    before = feedback.log()
    feedback.observed(request(prompt_tokens=1000), decision, outcome(Ending.COMPLETED, 0.5))
    (after,) = feedback.log()

    assert before[0]["ending"] is None
    assert (after["ending"], after["ttft_s"], after["engine"]) == ("completed", 0.5, "a")
    assert after["candidates"][0]["inflight_prefill_tokens"] == 500
