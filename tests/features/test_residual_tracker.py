import math
from random import Random

import numpy as np
import pytest

from lodestar_router.core.types import Decision, EngineId
from lodestar_router.features.residual_tracker import (
    MAX_CORRECTION,
    ResidualTracker,
    clipped,
    prediction_error,
)
from lodestar_router.policy.lodestar import LodestarPolicy
from tests.factories import candidate, request

A, B = EngineId("a"), EngineId("b")


def observed(errors: list[float], gap_s: float = 0.2) -> tuple[ResidualTracker, float]:
    tracker = ResidualTracker()
    for number, error in enumerate(errors):
        tracker.observe(A, error, number * gap_s)
    return tracker, (len(errors) - 1) * gap_s


def test_an_engine_never_observed_is_not_corrected() -> None:
    tracker, now_s = observed([1.0])

    assert tracker.value(B, now_s) == 0.0


def test_a_single_observation_counts_for_little() -> None:
    tracker, now_s = observed([1.0])

    assert 0.1 < tracker.value(A, now_s) < 0.3


def test_an_engine_that_turns_slow_is_noticed_within_seconds() -> None:
    tracker, now_s = observed([0.0] * 200 + [math.log(3)] * 16)

    assert tracker.value(A, now_s) > 0.45 * math.log(3)


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
    tracker, now_s = observed([1e9] * 100)

    assert tracker.value(A, now_s) == MAX_CORRECTION
    assert clipped(-99.0) == -MAX_CORRECTION
    assert clipped(math.nan) == 0.0


def test_a_forgotten_engine_starts_anew() -> None:
    tracker, now_s = observed([1.0] * 9)

    tracker.forget(A)
    tracker.forget(B)

    assert tracker.value(A, now_s) == 0.0


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
