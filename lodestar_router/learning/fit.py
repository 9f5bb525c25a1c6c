"""Fitting the residual net: Adam on mini-batches, on from where it stopped.

In       standardised x [rows, features], y = ln(ttft / base) [rows].
Out      better weights in `net`.
Cost     0.1 ms a step of 256 rows.
"""

from collections.abc import Callable

import numpy as np
import torch

from lodestar_router.core.types import FloatMatrix, FloatVector
from lodestar_router.features.schema import NUM_FEATURES
from lodestar_router.features.serving import MAX_RESIDUAL, PublishedModel
from lodestar_router.learning.adam import Adam
from lodestar_router.learning.gradient import LossGradient
from lodestar_router.learning.model import ResidualNet

_BATCH_ROWS = 256
_EPOCHS, _STEPS_MIN, _STEPS_MAX = 4, 64, 256
_LEARNING_RATE, _WEIGHT_DECAY, _GRADIENT_NORM = 2e-3, 1e-3, 1.0
# tanh reaches its bound nowhere: labels beyond this would only drive weights up.
_MAX_TARGET = 0.96 * MAX_RESIDUAL


class ResidualFit:
    """The net being trained and its optimiser."""

    def __init__(self, generator: torch.Generator, model: PublishedModel | None) -> None:
        self._generator = generator
        self.restart(model)

    def restart(self, model: PublishedModel | None) -> None:
        """Back to a model's weights; without one, to g = 0."""
        self.net = ResidualNet(NUM_FEATURES, self._generator)
        if model is not None:
            self.net.load(model.layers)
        self._adam = Adam(self.net.weights, rate=_LEARNING_RATE, decay=_WEIGHT_DECAY)
        self._gradient = LossGradient(self.net, _BATCH_ROWS)

    @torch.inference_mode()
    def learn(self, x: FloatMatrix, y: FloatVector, in_time: Callable[[], bool]) -> int:
        """Steps until enough or no longer `in_time`; returns how many."""
        rows = len(x)
        steps = min(max(_EPOCHS * rows // _BATCH_ROWS, _STEPS_MIN), _STEPS_MAX)
        with_ones = torch.from_numpy(np.column_stack([x, np.ones(rows, np.float32)]))
        target = torch.from_numpy(np.clip(y, -_MAX_TARGET, _MAX_TARGET))
        drawn = torch.randint(rows, (steps * _BATCH_ROWS,), generator=self._generator)
        # [steps, batch, features + 1] and [steps, batch]: 5 MB for the most steps
        batches = with_ones[drawn].view(steps, _BATCH_ROWS, -1).unbind(0)
        targets = target[drawn].view(steps, _BATCH_ROWS).unbind(0)
        for step, (batch, wanted) in enumerate(zip(batches, targets, strict=True)):
            if not in_time():
                return step
            gradient = self._gradient.of(batch, wanted)
            norm = float(torch.dot(gradient, gradient)) ** 0.5
            if norm > _GRADIENT_NORM:
                gradient.mul_(_GRADIENT_NORM / norm)
            self._adam.step(gradient)
        return steps
