import numpy as np
import pytest

from lodestar_router.features.schema import NUM_FEATURES
from lodestar_router.features.serving import MAX_RESIDUAL, POOLED
from lodestar_router.learning.gate import spread_of
from lodestar_router.learning.rows import RowBatch


def batch(*gpus: str) -> RowBatch:
    kinds = ("A30", "V100", "H100")
    rows = len(gpus)
    return RowBatch(
        np.zeros((rows, NUM_FEATURES), np.float32),
        np.ones(rows),
        np.ones(rows),
        np.zeros(rows, np.bool_),
        np.array([kinds.index(gpu) for gpu in gpus], dtype=np.intp),
        kinds,
    )


def errors(*of_kinds: tuple[float, int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0, std, rows) for std, rows in of_kinds]).astype(np.float32)


def test_each_kind_has_its_own_spread() -> None:
    spread = spread_of(
        batch(*["A30"] * 4000, *["V100"] * 4000), errors((0.1, 4000), (0.4, 4000)), {}
    )

    assert spread["A30"] == pytest.approx(0.1, rel=0.1)
    assert spread["V100"] == pytest.approx(0.4, rel=0.1)
    assert spread[POOLED] == pytest.approx(np.sqrt((0.01 + 0.16) / 2), rel=0.1)
    assert "H100" not in spread


def test_a_kind_with_few_rows_is_like_the_fleet() -> None:
    spread = spread_of(batch(*["A30"] * 500, *["V100"] * 2), errors((0.1, 500), (2.0, 2)), {})

    assert spread["A30"] < spread["V100"] < 0.7


def test_a_kind_without_rows_keeps_its_spread() -> None:
    spread = spread_of(batch("A30"), errors((0.1, 1)), {"H100": 0.3, "A30": 9.0, POOLED: 9.0})

    assert spread["H100"] == 0.3
    assert spread["A30"] < 1.0, "nine was another time"


def test_one_stuck_request_is_no_spread() -> None:
    error = np.zeros(100, np.float32)
    error[0] = 50.0

    assert spread_of(batch(*["A30"] * 100), error, {})[POOLED] == pytest.approx(MAX_RESIDUAL / 10)
