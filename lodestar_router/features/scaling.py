"""Standardising features: running moments while training, frozen ones to serve.

    standardise(x) = clip((x - mean) / std, -4, +4),  std >= 0.1

The floor keeps a feature that hardly varied in training from turning a small
change into a huge input; the clip keeps load never seen from extrapolating.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lodestar_router.core.types import FloatMatrix, FloatVector

STD_FLOOR = 0.1  # features are ratios, flags and logarithms: of order 1
CLIP = 4.0  # deviations
_LOWEST, _HIGHEST = np.array(-CLIP, np.float32), np.array(CLIP, np.float32)
MEMORY_ROWS = 20_000  # older rows fade: about an hour at 5 requests/s


@dataclass(frozen=True, slots=True, eq=False)
class Scaler:
    """Moments of the training rows; float32 [features] each, `std` already floored."""

    mean: FloatVector
    std: FloatVector

    def standardise(self, features: FloatMatrix) -> FloatMatrix:
        """[rows, features] -> the same, in clipped deviations; NaN becomes the mean."""
        scaled: FloatMatrix = features - self.mean
        scaled /= self.std
        np.maximum(scaled, _LOWEST, out=scaled)
        np.minimum(scaled, _HIGHEST, out=scaled)
        flat = scaled.ravel()
        if math.isnan(flat.dot(flat)):  # bounded as all others are, only a NaN can make it one
            scaled[np.isnan(scaled)] = 0.0
        return scaled


class RunningMoments:
    """Mean and variance of all rows so far, the oldest fading.

    Batches are merged by the parallel form of Welford's method (Chan, Golub and
    LeVeque 1979), so the result does not depend on how rows were batched until
    MEMORY_ROWS are passed.
    """

    def __init__(self, num_features: int) -> None:
        self._count = 0.0
        self._mean: npt.NDArray[np.float64] = np.zeros(num_features)
        self._m2: npt.NDArray[np.float64] = np.zeros(num_features)

    @classmethod
    def resume(cls, scaler: Scaler, rows: float) -> "RunningMoments":
        """Go on from frozen moments, as if they were of that many rows."""
        moments = cls(len(scaler.mean))
        moments._count = rows
        moments._mean = scaler.mean.astype(np.float64)
        moments._m2 = scaler.std.astype(np.float64) ** 2 * rows
        return moments

    def update(self, features: FloatMatrix) -> None:
        """Take in rows, [rows, features]."""
        rows = len(features)
        if rows == 0:
            return
        values = features.astype(np.float64)
        mean = values.mean(axis=0)
        delta = mean - self._mean
        total = self._count + rows
        self._m2 += ((values - mean) ** 2).sum(axis=0) + delta**2 * (self._count * rows / total)
        self._mean += delta * (rows / total)
        self._count = min(total, MEMORY_ROWS)
        self._m2 *= self._count / total

    def freeze(self) -> Scaler:
        """The moments so far, floored."""
        std = np.sqrt(self._m2 / max(self._count, 1.0))
        return Scaler(self._mean.astype(np.float32), np.maximum(std, STD_FLOOR).astype(np.float32))
