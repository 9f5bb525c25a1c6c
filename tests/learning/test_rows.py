import numpy as np
import pytest

from lodestar_router.features.schema import LOG_BASE
from lodestar_router.learning.rows import RowTable
from tests.features.models import RATES, row


def test_rows_are_restated_under_other_rates() -> None:
    rows = [row(work_tokens=1000, gpu="A30", ttft_s=0.44), row(work_tokens=500, gpu="H100")]
    rows[0].features[0] = 7.0
    table = RowTable(5)
    table.put(3, rows[0])
    table.put(1, rows[1])
    batch = table.take(np.array([3, 1]))

    features, target = batch.under(RATES)

    assert features[:, LOG_BASE] == pytest.approx(np.log([0.22, 0.1]), rel=1e-5)
    assert features[0, 0] == 7.0
    assert target == pytest.approx(np.log([0.44 / 0.22, 0.3 / 0.1]), rel=1e-5)
    assert batch.features[1, LOG_BASE] == pytest.approx(np.log(0.1), rel=1e-5), "untouched"


def test_a_slot_holds_what_was_written_last() -> None:
    table = RowTable(1)
    table.put(0, row(gpu="A30", censored=True))
    table.put(0, row(gpu="V100", ttft_s=2.0, work_tokens=7))
    batch = table.take(np.array([0]))

    table.put(0, row(gpu="A30"))

    assert table.labelled(np.array([0])).tolist() == [0]
    assert [batch.gpus[index] for index in batch.gpu] == ["V100"]
    assert (batch.ttft_s.tolist(), batch.work_tokens.tolist()) == ([2.0], [7.0]), "a copy"
