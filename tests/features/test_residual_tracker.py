import math
from random import Random

import numpy as np
import pytest

from lodestar_router.core.types import Decision, EngineId
from lodestar_router.features.residual_tracker import (
    MAX_CORRECTION,
    MAX_DEVIATION,
    ResidualTracker,
    clipped,
    prediction_error,
)
from lodestar_router.policy.lodestar import LodestarPolicy
from tests.factories import candidate, request

A, B = EngineId("a"), EngineId("b")
OTHERS = (B, EngineId("c"), EngineId("d"))


def observed(
    errors: list[float], others: float | None = 0.0, gap_s: float = 0.2
) -> tuple[ResidualTracker, float]:
    """Errors of A in turn, each with three of other engines unless `others` is None."""
    tracker = ResidualTracker()
    for number, error in enumerate(errors):
        now_s = number * gap_s
        for other in () if others is None else OTHERS:
            tracker.observe(other, others or 0.0, now_s)
        tracker.observe(A, error, now_s)
    return tracker, (len(errors) - 1) * gap_s


def test_nothing_observed_corrects_nothing() -> None:
    assert ResidualTracker().value(A, 5.0) == 0.0


def test_a_single_observation_counts_for_little() -> None:
    tracker, now_s = observed([1.0])

    assert 0.1 < tracker.value(A, now_s) < 0.4


def test_an_engine_that_turns_slow_is_noticed_within_seconds() -> None:
    tracker, now_s = observed([0.0] * 200 + [math.log(3)] * 16)

    assert tracker.value(A, now_s) > 0.5 * math.log(3)
    assert tracker.value(B, now_s) < 0.15 * math.log(3)


def test_an_error_common_to_all_sets_no_engine_apart() -> None:
    """Rates wrong by a factor of 10: engines differ in observations, not in speed."""
    tracker, now_s = observed([-2.3] * 40, others=None)
    tracker.observe(B, -2.3, now_s)

    values = [tracker.value(EngineId(name), now_s) for name in ("a", "b", "never-seen")]

    assert max(values) - min(values) < 0.5
    assert min(values) < -1.7


def test_what_was_observed_is_forgotten_in_time() -> None:
    tracker, now_s = observed([1.0] * 50)

    values = [tracker.value(A, now_s + wait_s) for wait_s in (0, 30, 120, 600)]

    assert values == sorted(values, reverse=True)
    assert values[0] > 0.7
    assert values[-1] < 0.01


def test_reading_changes_nothing() -> None:
    tracker, now_s = observed([1.0] * 5)

    assert tracker.value(A, now_s + 9) == tracker.value(A, now_s + 9)


@pytest.mark.parametrize("error", [math.nan, math.inf, -math.inf])
def test_an_error_that_is_no_number_is_ignored(error: float) -> None:
    tracker, now_s = observed([0.5, 0.5])
    before = tracker.value(A, now_s)

    tracker.observe(A, error, now_s)

    assert tracker.value(A, now_s) == before


def test_the_correction_is_bounded() -> None:
    alone, now_s = observed([1e9] * 100, others=None)
    among, _ = observed([1e9] * 100, others=-1e9)

    assert alone.value(A, now_s) <= MAX_CORRECTION
    assert among.value(A, now_s) - among.value(EngineId("never-seen"), now_s) == MAX_DEVIATION
    assert clipped(-99.0) == -MAX_CORRECTION
    assert clipped(math.nan) == 0.0


def test_a_forgotten_engine_is_like_the_fleet() -> None:
    tracker, now_s = observed([1.0] * 9)

    tracker.forget(A)
    tracker.forget(EngineId("never-seen"))

    assert tracker.value(A, now_s) == tracker.value(EngineId("never-seen"), now_s)


def test_correcting_does_not_change_what_is_tracked() -> None:
    """An engine always 2.5 times slower is corrected by that factor, not by half of it."""
    tracker, policy = ResidualTracker(), LodestarPolicy(Random(0))
    uncorrected_s = 0.0
    for number in range(100):
        now_s = number * 0.5
        engine = candidate("a", log_residual=tracker.value(A, now_s))
        decision = policy.choose(request(now_s=now_s), [engine])
        assert decision.base_s is not None
        uncorrected_s = float(decision.base_s[0])
        error = prediction_error(decision, 2.5 * uncorrected_s)
        assert error is not None
        tracker.observe(A, error, now_s)

    predicted_s = uncorrected_s * math.exp(tracker.value(A, 50.0))

    assert predicted_s == pytest.approx(2.5 * uncorrected_s, rel=0.25)


def test_a_decision_without_prediction_has_no_error() -> None:
    plain = Decision(
        policy="x", candidates=(candidate(),), chosen=0, costs=[0.0], reason="only"
    )  # fmt: skip
    predicted = Decision(
        policy="x", candidates=(candidate(),), chosen=0, costs=[0.0], reason="only",
        predicted_ttft_s=np.array([0.5], np.float32),
    )  # fmt: skip

    assert prediction_error(plain, 0.3) is None
    assert prediction_error(predicted, 0.0) is None
    assert prediction_error(predicted, 1.0) == pytest.approx(math.log(2))
