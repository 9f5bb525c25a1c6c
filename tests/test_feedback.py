"""Labels join their decisions once, whatever comes first."""

from random import Random

import pytest

from lodestar_router.core.types import (
    Decision,
    Ending,
    EngineId,
    Outcome,
    RoutedRequest,
    replace,
)
from lodestar_router.features.decoding import Decoding
from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.features.row import TrainingRow
from lodestar_router.feedback import RouterFeedback
from lodestar_router.policy.lodestar import LodestarPolicy
from tests.factories import candidate, request

A = EngineId("a")


ASKED = request(prompt_tokens=1000, now_s=10.0)


def outcome(ending: Ending | None, ttft_s: float | None, waited_s: float = 2.0) -> Outcome:
    return Outcome(request_id="r", engine_id=A, ending=ending, ttft_s=ttft_s, waited_s=waited_s)


class Scene:
    """One request sent to engine a; time stands still until told."""

    def __init__(self, asked: RoutedRequest = ASKED) -> None:
        self.now_s = asked.now_s
        self.rows: list[TrainingRow] = []
        self.tracker = ResidualTracker()
        self.feedback = RouterFeedback(self.tracker, self.rows.append, clock=lambda: self.now_s)
        self.asked = asked
        self.decision = self.decide(asked)

    def decide(self, asked: RoutedRequest) -> Decision:
        decision = LodestarPolicy(Random(0)).choose(
            asked, [candidate("a", inflight_prefill_tokens=500, inflight_computed_tokens=200)]
        )
        self.feedback.decided(asked, decision)
        return decision

    def observe(self, ending: Ending | None, ttft_s: float | None, waited_s: float = 2.0) -> None:
        self.feedback.observed(self.asked, self.decision, outcome(ending, ttft_s, waited_s))

    def pass_time(self, seconds: float) -> None:
        """Another request comes so much later, to which nothing happens."""
        self.now_s += seconds
        self.decide(request(prompt_tokens=1, now_s=self.now_s, stream=False))


def test_a_first_token_is_one_row_and_the_end_of_its_stream_none() -> None:
    scene = Scene()

    scene.observe(None, 0.5)
    scene.observe(Ending.COMPLETED, 0.5)

    (row,) = scene.rows
    assert (row.ttft_s, row.censored, row.work_tokens) == (0.5, False, 1500)
    assert scene.decision.features is not None
    assert (row.features == scene.decision.features[0]).all()


@pytest.mark.parametrize("ending", [Ending.CANCELLED, Ending.FAILED])
def test_a_request_cut_before_its_first_token_is_a_lower_bound(ending: Ending) -> None:
    scene = Scene()

    scene.observe(ending, None, waited_s=7.0)

    (row,) = scene.rows
    assert (row.ttft_s, row.censored) == (7.0, True)
    assert scene.tracker.value(A, 10.0) > 0.0


def test_what_was_never_sent_there_says_nothing_of_the_engine() -> None:
    scene = Scene()

    scene.observe(Ending.MOVED, None, waited_s=7.0)
    scene.pass_time(100.0)

    assert [row for row in scene.rows if row.row_id == 1] == []
    assert scene.tracker.value(A, 10.0) == 0.0
    assert scene.feedback.log()[0]["ending"] == "moved"


def test_a_bound_below_the_prediction_says_nothing_against_it() -> None:
    scene = Scene()

    scene.observe(Ending.CANCELLED, None, waited_s=0.001)

    assert [row.censored for row in scene.rows] == [True]
    assert scene.tracker.value(A, 10.0) == 0.0


def test_a_request_that_hangs_is_a_bound_at_twice_its_prediction_and_each_doubling() -> None:
    scene = Scene()
    assert scene.decision.predicted_ttft_s is not None
    predicted_s = float(scene.decision.predicted_ttft_s[0])

    waited, corrections = [], []
    for _ in range(200):
        scene.pass_time(predicted_s / 10)
        waited = [row.ttft_s / predicted_s for row in scene.rows if row.row_id == 1]
        corrections.append(scene.tracker.value(A, scene.now_s))

    assert waited == pytest.approx([2, 4, 8, 16], rel=0.1)
    assert all(row.censored for row in scene.rows)
    assert corrections[10] == 0.0
    assert corrections[30] > 0.05
    assert corrections[-1] > corrections[30]


def test_a_label_ends_the_bounds_and_has_their_number() -> None:
    scene = Scene()
    scene.pass_time(5.0)

    scene.observe(None, 5.5)
    scene.pass_time(100.0)

    of_it = [(row.ttft_s, row.censored) for row in scene.rows if row.row_id == 1]
    assert of_it == [(5.0, True), (5.5, False)]


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.CANCELLED, Ending.COMPLETED])
def test_without_a_stream_time_waited_is_no_bound(ending: Ending) -> None:
    """Its first token may have been made long before."""
    scene = Scene(request(prompt_tokens=1000, now_s=10.0, stream=False))

    scene.pass_time(60.0)
    scene.observe(ending, None, waited_s=60.0)

    assert [row for row in scene.rows if row.row_id == 1] == []


def test_a_rejected_request_teaches_nothing() -> None:
    scene = Scene()

    scene.observe(Ending.REJECTED, None)

    assert scene.rows == []
    assert scene.tracker.value(A, 10.0) == 0.0


def test_the_log_explains_a_decision_and_what_became_of_it() -> None:
    scene = Scene()

    before = scene.feedback.log()
    scene.observe(Ending.COMPLETED, 0.5)
    (after,) = scene.feedback.log()

    assert before[0]["ending"] is None
    assert (after["ending"], after["ttft_s"], after["engine"]) == ("completed", 0.5, "a")
    assert after["candidates"][0]["inflight_prefill_tokens"] == 500
    assert after["candidates"][0]["inflight_computed_tokens"] == 200


def test_an_answer_is_followed_from_its_first_token_to_its_end() -> None:
    decoding = Decoding()
    now_s = 1.0
    feedback = RouterFeedback(
        ResidualTracker(), lambda _: None, clock=lambda: now_s, decoding=decoding
    )
    asked, engines = request(prompt_tokens=1000), [candidate("a")]
    decision = LodestarPolicy(Random(0)).choose(asked, engines)
    feedback.decided(asked, decision)

    feedback.observed(asked, decision, outcome(None, 0.5))
    now_s = 3.0
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
