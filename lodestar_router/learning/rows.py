"""Training rows as arrays.

In       TrainingRow, one at a time, each into a slot.
Out      RowBatch: any slots, gathered.
Cost     put 3 us; take 0.1 us per row. Memory 100 bytes a slot, taken at once.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lodestar_router.core.types import FloatMatrix, FloatVector
from lodestar_router.features.rates import TtftRates
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.schema import LOG_BASE, NUM_FEATURES

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Slots = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """Rows as arrays, all of one length."""

    features: FloatMatrix  # [rows, features]
    work_tokens: FloatArray  # [rows]
    ttft_s: FloatArray  # [rows]
    censored: BoolArray  # [rows], where ttft_s is a lower bound
    gpu: Slots  # [rows], index into gpus
    gpus: tuple[str, ...]

    def under(self, rates: TtftRates) -> tuple[FloatMatrix, FloatVector]:
        """(features, ln(ttft / base)) as they are if `rates` are the served ones.

        Only log_base depends on the rates; every other column stays as it was scored.
        """
        by_gpu = [rates.of(gpu) for gpu in self.gpus]
        t0_s = np.array([rate.t0_s for rate in by_gpu])[self.gpu]
        s_per_token = np.array([rate.s_per_token for rate in by_gpu])[self.gpu]
        log_base = np.log(t0_s + self.work_tokens * s_per_token)
        features = self.features.copy()
        features[:, LOG_BASE] = log_base
        return features, (np.log(self.ttft_s) - log_base).astype(np.float32)

    def shortfall(self, error: FloatVector) -> FloatVector:
        """ln(observed / predicted) with a prediction above a bound counting as right."""
        return np.where(self.censored, np.maximum(error, 0.0), error)


class RowTable:
    """A fixed number of slots, one row each; who holds which is the caller's affair."""

    def __init__(self, slots: int) -> None:
        self.features: FloatMatrix = np.zeros((slots, NUM_FEATURES), dtype=np.float32)
        self.work_tokens: FloatArray = np.zeros(slots)
        self.ttft_s: FloatArray = np.ones(slots)
        self.censored: BoolArray = np.zeros(slots, dtype=np.bool_)
        self.row_id: npt.NDArray[np.int64] = np.zeros(slots, dtype=np.int64)
        self.gpu: Slots = np.zeros(slots, dtype=np.intp)
        self.gpus: dict[str, int] = {}

    def put(self, slot: int, row: TrainingRow) -> None:
        """Write a row over whatever was there."""
        self.features[slot] = row.features
        self.work_tokens[slot] = row.work_tokens
        self.ttft_s[slot] = row.ttft_s
        self.censored[slot] = row.censored
        self.row_id[slot] = row.row_id
        self.gpu[slot] = self.gpus.setdefault(row.gpu, len(self.gpus))

    def labelled(self, slots: Slots) -> Slots:
        """Those of the slots whose row has a label and not a bound."""
        return slots[~self.censored[slots]]

    def take(self, slots: Slots) -> RowBatch:
        """The rows in these slots, in this order, as copies."""
        return RowBatch(
            self.features[slots],
            self.work_tokens[slots],
            self.ttft_s[slots],
            self.censored[slots],
            self.gpu[slots],
            tuple(self.gpus),
        )
