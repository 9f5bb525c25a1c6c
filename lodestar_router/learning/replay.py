"""What the trainer remembers: a window of the newest rows, a sample of all before.

The window follows the fleet as it is; the reservoir keeps rare load levels from
being forgotten while traffic is calm. A row that leaves the window enters the
reservoir with the probability that keeps it a uniform sample (Vitter 1985,
algorithm R). Memory is bounded by the two capacities.

Rows live in a RowTable and are known by their slots in it, so a round gathers what
it needs without building anything again.
"""

from collections import deque
from random import Random

import numpy as np

from lodestar_router.features.row import TrainingRow
from lodestar_router.learning.rows import RowBatch, RowTable, Slots

WINDOW_ROWS = 4096
RESERVOIR_ROWS = 4096


class ReplayBuffer:
    """Rows in, the two samples out; both in order of arrival."""

    def __init__(
        self, rng: Random, window_rows: int = WINDOW_ROWS, reservoir_rows: int = RESERVOIR_ROWS
    ) -> None:
        self._rng = rng
        capacity = window_rows + reservoir_rows + 1  # a row enters before another leaves
        self._table = RowTable(capacity)
        self._free = list(range(capacity))
        self._window: deque[int] = deque()
        self._window_rows = window_rows
        self._reservoir: list[int] = []
        self._reservoir_rows = reservoir_rows
        self._left_window = 0

    def __len__(self) -> int:
        return len(self._window) + len(self._reservoir)

    def add(self, row: TrainingRow) -> None:
        """Remember a row, perhaps in place of another."""
        slot = self._free.pop()
        self._table.put(slot, row)
        self._window.append(slot)
        if len(self._window) <= self._window_rows:
            return
        leaving = self._window.popleft()
        self._left_window += 1
        if len(self._reservoir) < self._reservoir_rows:
            self._reservoir.append(leaving)
        elif (place := self._rng.randrange(self._left_window)) < self._reservoir_rows:
            self._free.append(self._reservoir[place])
            self._reservoir[place] = leaving
        else:
            self._free.append(leaving)

    def recent(self) -> Slots:
        """The window's labelled rows, oldest first."""
        return self._table.labelled(np.array(self._window, dtype=np.intp))

    def older(self) -> Slots:
        """The labelled rows of the sample of everything that left the window."""
        return self._table.labelled(np.array(self._reservoir, dtype=np.intp))

    def take(self, slots: Slots) -> RowBatch:
        """The rows in these slots, in this order."""
        return self._table.take(slots)
