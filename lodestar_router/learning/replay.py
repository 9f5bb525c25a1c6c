"""What the trainer remembers: a window of the newest rows, a sample of all before.

The window follows the fleet as it is. The reservoir keeps what calm traffic would
wash out: a row that leaves the window joins its stratum, rows of one GPU kind at
about one load, and when the reservoir is full the fullest stratum gives one up. So
strata grow evenly, and a load level seen once a day, or a kind with little traffic,
keeps its rows. Within the fullest stratum every row seen is as likely to be held
(Vitter 1985, algorithm R).

A label takes the place of the bound that was known of its request.

Rows live in a RowTable and are known by their slots in it, so a round gathers what
it needs without building anything again. Memory is bounded by the two capacities.
"""

from collections import deque
from random import Random

import numpy as np

from lodestar_router.features.row import TrainingRow
from lodestar_router.features.schema import FEATURES
from lodestar_router.learning.rows import RowBatch, RowTable, Slots

WINDOW_ROWS = 4096
RESERVOIR_ROWS = 4096

_NAMES = [feature.name for feature in FEATURES]
_PREFILL = _NAMES.index("inflight_prefill_tokens")  # both columns are ln(1 + value)
_DECODES = _NAMES.index("inflight_decode_requests")
_PREFILL_STEP = 2.0  # ln: 0, 6, 53, 402, 2980, 22025 tokens; half a minute's work at the top

Stratum = tuple[int, int, int]


class ReplayBuffer:
    """Rows in, the two samples out."""

    def __init__(
        self, rng: Random, window_rows: int = WINDOW_ROWS, reservoir_rows: int = RESERVOIR_ROWS
    ) -> None:
        self._rng = rng
        capacity = window_rows + reservoir_rows + 1  # a row enters before another leaves
        self._table = RowTable(capacity)
        self._free = list(range(capacity))
        self._window: deque[int] = deque()
        self._window_rows = window_rows
        self._bounds: dict[int, int] = {}  # row_id -> slot, of bounds in the window
        self._strata: dict[Stratum, list[int]] = {}
        self._seen: dict[Stratum, int] = {}  # rows that left the window
        self._reservoir_rows = reservoir_rows
        self._held = 0

    def __len__(self) -> int:
        return len(self._window) + self._held

    def add(self, row: TrainingRow) -> bool:
        """Remember a row; false if it took the place of its request's bound."""
        bound = self._bounds.pop(row.row_id, None)
        slot = self._free.pop() if bound is None else bound
        self._table.put(slot, row)
        if row.censored and row.row_id:
            self._bounds[row.row_id] = slot
        if bound is not None:
            return False
        self._window.append(slot)
        if len(self._window) > self._window_rows:
            leaving = self._window.popleft()
            self._bounds.pop(int(self._table.row_id[leaving]), None)
            self._keep(leaving)
        return True

    def keep(self, row: TrainingRow) -> None:
        """Put a row into the reservoir that was in one before."""
        slot = self._free.pop()
        self._table.put(slot, row)
        self._keep(slot)

    def _keep(self, slot: int) -> None:
        """Let a row into the reservoir, or let it go."""
        stratum = self._stratum(slot)
        members = self._strata.setdefault(stratum, [])
        self._seen[stratum] = seen = self._seen.get(stratum, 0) + 1
        if self._held < self._reservoir_rows:
            members.append(slot)
            self._held += 1
            return
        fullest = max(self._strata.values(), key=len)
        if len(members) < len(fullest):
            self._free.append(self._remove_one(fullest))
            members.append(slot)
        elif self._rng.random() * seen < len(members):
            self._free.append(self._remove_one(members))
            members.append(slot)
        else:
            self._free.append(slot)

    def _remove_one(self, members: list[int]) -> int:
        place = self._rng.randrange(len(members))
        members[place], members[-1] = members[-1], members[place]
        return members.pop()

    def _stratum(self, slot: int) -> Stratum:
        features = self._table.features[slot]
        return (
            int(self._table.gpu[slot]),
            int(features[_PREFILL] / _PREFILL_STEP),
            int(features[_DECODES]),
        )

    def recent(self) -> Slots:
        """The window's rows, oldest first."""
        return np.array(self._window, dtype=np.intp)

    def older(self) -> Slots:
        """The reservoir's rows, by stratum."""
        slots = [slot for members in self._strata.values() for slot in members]
        return np.array(slots, dtype=np.intp)

    def labelled(self, slots: Slots) -> Slots:
        """Those of the slots whose row has a label and not a bound."""
        return self._table.labelled(slots)

    def take(self, slots: Slots) -> RowBatch:
        """The rows in these slots, in this order."""
        return self._table.take(slots)
