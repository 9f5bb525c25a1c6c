"""What is published when labels lie, weights are garbage, or the world changes; and after."""

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from lodestar_router.features.row import TrainingRow
from lodestar_router.features.serving import PublishedModel
from lodestar_router.learning.report import TrainReport
from lodestar_router.learning.trainer import Trainer
from tests.features.models import layers
from tests.learning.traffic import rows


class Served:
    """A trainer and the version that rows are scored by."""

    def __init__(self) -> None:
        self.taught = Trainer(0, lambda: 0.0)
        self.model: PublishedModel | None = None
        self.reports: list[TrainReport] = []
        self._seed = 0

    def rounds(self, count: int, lie: float = 0.0, rows_per_round: int = 100) -> None:
        """Serve, label and learn; a lie makes labels of busy engines that much shorter (ln)."""
        for _ in range(count):
            self._seed += 1
            for each in rows(rows_per_round, self._seed, self.model):
                self.taught.add(_told(each, lie))
            report, published = self.taught.learn_many()
            self.reports.append(report)
            self.model = published or self.model

    def error(self) -> tuple[float, float]:
        """Mean |ln| on truthful rows: as served, and of the base."""
        assert self.model is not None
        unseen = list(rows(400, seed=9999, served=self.model))
        features = np.stack([each.features for each in unseen])
        target = np.log([each.ttft_s for each in unseen]) - features[:, -1]
        g = self.model.residual(features) if self.model.trusted else 0.0
        return float(np.abs(target - g).mean()), float(np.abs(target).mean())


def _told(row: TrainingRow, lie: float) -> TrainingRow:
    busy = row.features[7] / 3.5  # ln(1 + running): 0..1
    return structs.replace(row, ttft_s=row.ttft_s * float(np.exp(-lie * busy)))


@pytest.fixture
def served() -> Served:
    served = Served()
    served.rounds(12)
    return served


def test_garbage_weights_are_taken_back_at_the_next_round(served: Served) -> None:
    good = served.error()[0]
    assert served.model is not None
    garbage = replace(
        served.model,
        version=served.model.version + 1,
        layers=layers(seed=1, scale=2.0, hidden=(64, 32)),
    )
    served.taught.serve(garbage)
    served.model = garbage
    assert served.error()[0] > 3 * good

    served.rounds(1)

    assert served.reports[-1].outcome in ("published", "rolled_back")
    assert served.model.version > garbage.version
    assert served.error()[0] < 1.3 * good


def test_a_version_that_lying_labels_made_is_gone_soon_after_they_end(served: Served) -> None:
    good = served.error()[0]
    served.rounds(10, lie=2.5)
    fooled = served.error()[0]

    served.rounds(4)

    assert fooled > 2 * good, "the lie was believed"
    assert served.error()[0] < 0.6 * fooled


def test_after_lying_labels_the_model_is_as_good_as_before(served: Served) -> None:
    good = served.error()[0]
    served.rounds(4, lie=1.5)

    served.rounds(12)

    assert served.error()[0] < 1.2 * good


def test_a_world_that_changes_is_followed(served: Served) -> None:
    served.rounds(1, lie=-1.5)
    surprised = served.reports[-1]

    served.rounds(12, lie=-1.5)

    assert served.reports[-1].error < 0.5 * surprised.error_served
    assert served.reports[-1].error < served.reports[-1].error_base
