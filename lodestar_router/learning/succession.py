"""The versions that were served, held against each other by rows none was fitted on.

    served      what is in use since `begin`; the rows after that are a test of it
    before      the version before it, if that was a good one: what to go back to

    beaten      mean (|error of served| - |error of other|) > MARGIN + SURE standard errors,
                over the newest rows since `begin`, MIN_ROWS at least

The gate before a publication looks at rows of one moment; a version that pleased there
and is worse than what it replaced shows itself on the rows that follow.

In       labelled rows, each before anything learns from it.
Out      whether `before`, or the base of `served` alone, predicts better.
Cost     0.3 ms a round.
"""

from collections import deque
from collections.abc import Iterable

import numpy as np

from lodestar_router.core.types import FloatVector
from lodestar_router.features.serving import MAX_RESIDUAL, PublishedModel
from lodestar_router.learning.rows import RowBatch

MIN_ROWS = 32
_WINDOW_ROWS = 256
MARGIN = 0.02  # ln: what is not worth going back for
_SURE = 3.0  # standard errors


def errors_of(model: PublishedModel, rows: RowBatch, *, base: bool = False) -> FloatVector:
    """ln(observed / predicted) of each row; a prediction above a bound is right.

    Args:
        base: without the residual, as it is also if the model is not trusted.
    """
    features, target = rows.under(model.rates)
    if model.trusted and not base:
        target = target - model.residual(features)
    return rows.shortfall(target)


class Succession:
    """See the module."""

    def __init__(self, served: PublishedModel | None) -> None:
        self.served = served
        self.before: PublishedModel | None = None
        self._to_before: deque[float] = deque(maxlen=_WINDOW_ROWS)
        self._to_base: deque[float] = deque(maxlen=_WINDOW_ROWS)

    def begin(self, model: PublishedModel) -> None:
        """Serve `model` from now on; what it replaces is kept if it has proved itself."""
        if self.served is not None and self.served.trusted and len(self._to_base) >= MIN_ROWS:
            self.before = self.served
        self._serve(model)

    def go_back(self, model: PublishedModel) -> None:
        """Serve a copy of `before`: there is nothing before that."""
        self.before = None
        self._serve(model)

    def _serve(self, model: PublishedModel) -> None:
        self.served = model
        self._to_before.clear()
        self._to_base.clear()

    def test(self, rows: RowBatch) -> None:
        """Take in rows that came after `begin`."""
        served = self.served
        if served is None or not served.trusted or not len(rows.ttft_s):
            return
        mine = _size(errors_of(served, rows))
        self._to_base.extend((mine - _size(errors_of(served, rows, base=True))).tolist())
        if self.before is not None:
            self._to_before.extend((mine - _size(errors_of(self.before, rows))).tolist())

    @property
    def beaten_by_before(self) -> bool:
        """The version before was better."""
        return _is_worse(self._to_before)

    @property
    def beaten_by_base(self) -> bool:
        """No residual at all was better."""
        return _is_worse(self._to_base)


def _size(error: FloatVector) -> FloatVector:
    """One row that was stuck behind something unseen decides nothing."""
    return np.minimum(np.abs(error), MAX_RESIDUAL)


def _is_worse(differences: Iterable[float]) -> bool:
    by = np.array(list(differences))
    if len(by) < MIN_ROWS:
        return False
    return bool(by.mean() > MARGIN + _SURE * by.std() / len(by) ** 0.5)
