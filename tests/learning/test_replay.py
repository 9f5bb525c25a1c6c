from random import Random

import numpy as np
import pytest

from lodestar_router.features.schema import LOG_BASE
from lodestar_router.learning.replay import ReplayBuffer, RowBatch
from tests.features.models import RATES, row


def filled(count: int, window: int, reservoir: int) -> ReplayBuffer:
    buffer = ReplayBuffer(Random(0), window, reservoir)
    for number in range(count):
        buffer.add(row(work_tokens=number))
    return buffer


def test_memory_is_bounded() -> None:
    assert len(filled(1000, window=10, reservoir=20)) == 30


def test_the_window_holds_the_newest_in_order() -> None:
    recent = filled(100, window=10, reservoir=20).recent()

    assert [row.work_tokens for row in recent] == list(range(90, 100))


def test_the_reservoir_samples_all_that_left_the_window() -> None:
    older = [row.work_tokens for row in filled(4000, window=100, reservoir=500).older()]

    assert len(set(older)) == 500
    assert max(older) < 3900
    assert np.mean(older) == pytest.approx(3900 / 2, rel=0.1)


def test_rows_are_restated_under_other_rates() -> None:
    rows = [row(work_tokens=1000, gpu="A30", ttft_s=0.44), row(work_tokens=500, gpu="H100")]
    rows[0].features[0] = 7.0

    features, target = RowBatch.of(rows).under(RATES)

    assert features[:, LOG_BASE] == pytest.approx(np.log([0.22, 0.1]), rel=1e-5)
    assert features[0, 0] == 7.0
    assert target == pytest.approx(np.log([0.44 / 0.22, 0.3 / 0.1]), rel=1e-5)
    assert rows[1].features[LOG_BASE] == pytest.approx(np.log(0.1), rel=1e-5), "untouched"
