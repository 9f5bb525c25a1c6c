"""What the trainer remembers: a window of the newest rows, a sample of all before.

The window follows the fleet as it is; the reservoir keeps rare load levels from
being forgotten while traffic is calm. A row that leaves the window enters the
reservoir with the probability that keeps it a uniform sample (Vitter 1985,
algorithm R). Memory is bounded by the two capacities.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt

from lodestar_router.core.types import FloatMatrix, FloatVector
from lodestar_router.features.rates import TtftRates
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.schema import LOG_BASE, NUM_FEATURES

WINDOW_ROWS = 4096
RESERVOIR_ROWS = 4096


class ReplayBuffer:
    """Rows in, the two samples out; both in order of arrival."""

    def __init__(
        self, rng: Random, window_rows: int = WINDOW_ROWS, reservoir_rows: int = RESERVOIR_ROWS
    ) -> None:
        self._rng = rng
        self._window: deque[TrainingRow] = deque()
        self._window_rows = window_rows
        self._reservoir: list[TrainingRow] = []
        self._reservoir_rows = reservoir_rows
        self._left_window = 0

    def __len__(self) -> int:
        return len(self._window) + len(self._reservoir)

    def add(self, row: TrainingRow) -> None:
        """Remember a row, perhaps in place of another."""
        self._window.append(row)
        if len(self._window) <= self._window_rows:
            return
        leaving = self._window.popleft()
        self._left_window += 1
        if len(self._reservoir) < self._reservoir_rows:
            self._reservoir.append(leaving)
        elif (slot := self._rng.randrange(self._left_window)) < self._reservoir_rows:
            self._reservoir[slot] = leaving

    def recent(self) -> list[TrainingRow]:
        """The window, oldest first."""
        return list(self._window)

    def older(self) -> list[TrainingRow]:
        """The sample of everything that left the window."""
        return list(self._reservoir)


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """Rows as arrays, all of one length."""

    features: FloatMatrix  # [rows, features]
    work_tokens: npt.NDArray[np.float64]  # [rows]
    ttft_s: npt.NDArray[np.float64]  # [rows]
    gpus: tuple[str, ...]

    @classmethod
    def of(cls, rows: Sequence[TrainingRow]) -> "RowBatch":
        """Stack rows."""
        features = np.zeros((len(rows), NUM_FEATURES), dtype=np.float32)
        for index, row in enumerate(rows):
            features[index] = row.features
        return cls(
            features,
            np.array([row.work_tokens for row in rows], dtype=np.float64),
            np.array([row.ttft_s for row in rows], dtype=np.float64),
            tuple(row.gpu for row in rows),
        )

    def under(self, rates: TtftRates) -> tuple[FloatMatrix, FloatVector]:
        """(features, ln(ttft / base)) as they are if `rates` are the served ones.

        Only log_base depends on the rates; every other column stays as it was scored.
        """
        by_row = [rates.of(gpu) for gpu in self.gpus]
        t0_s = np.array([rate.t0_s for rate in by_row])
        s_per_token = np.array([rate.s_per_token for rate in by_row])
        log_base = np.log(t0_s + self.work_tokens * s_per_token)
        features = self.features.copy()
        features[:, LOG_BASE] = log_base
        return features, (np.log(self.ttft_s) - log_base).astype(np.float32)
