"""How far predictions stray, per GPU kind.

    spread(kind) = sqrt((sum of error^2 over its rows + STRENGTH * pooled^2) / (rows + STRENGTH))

A kind with few rows is taken to be like the fleet. An error counts for
MAX_RESIDUAL at most: one request stuck behind something unseen is no spread.
"""

from collections.abc import Mapping

import numpy as np

from lodestar_router.core.types import FloatVector
from lodestar_router.features.serving import MAX_RESIDUAL, POOLED
from lodestar_router.learning.rows import RowBatch

_STRENGTH = 16.0  # rows' worth of belief that a kind is like the fleet


def mean_of(error: FloatVector) -> float:
    """Mean |ln(observed / predicted)|."""
    return float(np.abs(error).mean())


def spread_of(rows: RowBatch, error: FloatVector, before: Mapping[str, float]) -> dict[str, float]:
    """PublishedModel.spread from ln(observed / predicted) of these rows, one at least.

    A kind without rows keeps what was known of it before.
    """
    square = np.square(np.clip(error, -MAX_RESIDUAL, MAX_RESIDUAL), dtype=np.float64)
    pooled = float(square.mean())
    spread = {**before, POOLED: pooled**0.5}
    for index, gpu in enumerate(rows.gpus):
        of_kind = square[rows.gpu == index]
        if len(of_kind):
            mean = (float(of_kind.sum()) + _STRENGTH * pooled) / (len(of_kind) + _STRENGTH)
            spread[gpu] = mean**0.5
    return spread
