import numpy as np
import pytest

from lodestar_router.features.scaling import CLIP, MEMORY_ROWS, STD_FLOOR, RunningMoments, Scaler


def test_moments_do_not_depend_on_batching() -> None:
    rows = np.random.default_rng(0).normal([3.0, -1.0], [2.0, 0.5], (999, 2)).astype(np.float32)
    moments = RunningMoments(2)

    for part in np.array_split(rows, [1, 7, 7, 400]):
        moments.update(part)

    scaler = moments.freeze()
    assert scaler.mean == pytest.approx(rows.mean(axis=0), rel=1e-4)
    assert scaler.std == pytest.approx(rows.std(axis=0), rel=1e-4)


def test_a_constant_feature_has_the_floor_for_its_deviation() -> None:
    moments = RunningMoments(1)
    moments.update(np.full((50, 1), 8.0, dtype=np.float32))

    scaler = moments.freeze()

    assert scaler.std[0] == pytest.approx(STD_FLOOR)
    assert scaler.standardise(np.array([[8.05]], dtype=np.float32))[0, 0] == pytest.approx(
        0.5, abs=1e-3
    )


def test_old_rows_fade() -> None:
    moments = RunningMoments(1)
    for value in (0.0, 1.0, 1.0, 1.0):
        moments.update(np.full((MEMORY_ROWS, 1), value, dtype=np.float32))

    assert moments.freeze().mean[0] == pytest.approx(7 / 8)


def test_resuming_keeps_the_moments() -> None:
    scaler = Scaler(np.array([2.0], np.float32), np.array([3.0], np.float32))

    again = RunningMoments.resume(scaler, 1000).freeze()

    assert (again.mean[0], again.std[0]) == pytest.approx((2.0, 3.0))


def test_standardised_values_are_clipped_and_nan_is_the_mean() -> None:
    scaler = Scaler(np.zeros(4, np.float32), np.ones(4, np.float32))
    odd = np.array([[1e30, -np.inf, np.nan, 1.5]], dtype=np.float32)

    assert scaler.standardise(odd)[0].tolist() == [CLIP, -CLIP, 0.0, 1.5]
    assert np.isnan(odd[0, 2]), "the input is left as it was"
