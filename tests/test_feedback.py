"""Labels join their decisions once, whatever comes first."""

from random import Random

from lodestar_router.core.types import Decision, Ending, EngineId, Outcome, replace
from lodestar_router.features.decoding import Decoding
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


def test_an_answer_is_followed_from_its_first_token_to_its_end() -> None:
    decoding = Decoding()
    clock = iter([1.0, 1.0, 3.0, 3.0]).__next__
    feedback = RouterFeedback(ResidualTracker(), lambda _: None, clock=clock, decoding=decoding)
    asked, engines = request(prompt_tokens=1000), [candidate("a")]
    decision = LodestarPolicy(Random(0)).choose(asked, engines)
    feedback.decided(asked, decision)

    feedback.observed(asked, decision, outcome(None, 0.5))
    feedback.observed(asked, decision, replace(outcome(Ending.COMPLETED, 0.5), output_tokens=51))

    alike = Decoding()
    alike.counted(asked, 51)
    alike.ended(alike.first_token(asked, engines[0], 1.0), 51, 3.0)
    later = request(now_s=3.0)
    assert decoding.forecast(later, engines) == alike.forecast(later, engines)
    assert decoding.forecast(later, engines) != Decoding().forecast(later, engines)


def test_of_an_answer_without_a_stream_only_the_length_is_learned() -> None:
    decoding = Decoding()
    feedback = RouterFeedback(
        ResidualTracker(), lambda _: None, clock=lambda: 1.0, decoding=decoding
    )
    decision = LodestarPolicy(Random(0)).choose(request(), [candidate("a")])
    feedback.decided(request(), decision)

    feedback.observed(
        request(), decision, replace(outcome(Ending.COMPLETED, None), output_tokens=7)
    )

    forecast = decoding.forecast(request(), [candidate("a")])
    assert forecast.output_tokens == 7
    assert forecast.tpot_s == Decoding().forecast(request(), [candidate("a")]).tpot_s
