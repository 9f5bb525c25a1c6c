"""Fitting the residual net: Adam on mini-batches, on from where it stopped.

In       standardised x [rows, features], y = ln(ttft / base) [rows], which of them are
         lower bounds.
Out      better weights in `net`.
Cost     0.1 ms a step of 256 rows.
"""

from collections.abc import Callable
from itertools import islice

import numpy as np
import torch

from lodestar_router.core.types import FloatMatrix, FloatVector
from lodestar_router.features.schema import NUM_FEATURES
from lodestar_router.features.serving import MAX_RESIDUAL, PublishedModel
from lodestar_router.learning.adam import Adam
from lodestar_router.learning.gradient import HUBER, LossGradient
from lodestar_router.learning.model import ResidualNet
from lodestar_router.learning.rows import BoolArray

BATCH_ROWS = 256
_STEPS_MIN, _STEPS_MAX = 8, 256
_DRAWS_PER_ROW = 160  # of each new row, over the rounds until it is forgotten
_LEARNING_RATE, _GRADIENT_NORM = 2e-3, 1.0
# Belief in g = 0, in rows. Without it the first minutes' few hundred rows are learned
# by heart: on unseen rows |ln error| was a sixth higher over the first five minutes,
# in five emulated fleets with two seeds each.
_PRIOR_ROWS = 2000.0
_DECAY_MIN, _DECAY_MAX = 0.1, 8.0
# tanh reaches its bound nowhere: labels beyond this would only drive weights up.
_MAX_TARGET = 0.96 * MAX_RESIDUAL


def batches_for(new_rows: int) -> int:
    """How many steps a round is worth: some for each row that is new."""
    return min(max(-(-_DRAWS_PER_ROW * new_rows // BATCH_ROWS), _STEPS_MIN), _STEPS_MAX)


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
        self._adam = Adam(self.net.weights, rate=_LEARNING_RATE)
        self._gradient = LossGradient(self.net, BATCH_ROWS)

    @torch.inference_mode()
    def learn(
        self,
        x: FloatMatrix,
        y: FloatVector,
        censored: BoolArray,
        in_time: Callable[[], bool],
        *,
        remembered: int,
    ) -> int:
        """A step on each whole batch of rows until no longer `in_time`; returns how many.

        Args:
            remembered: rows that these were drawn from.
        """
        steps = len(x) // BATCH_ROWS
        decay = min(max(_PRIOR_ROWS / remembered, _DECAY_MIN), _DECAY_MAX)
        ceiling = np.where(censored, np.float32(0.0), np.float32(HUBER))
        inputs = torch.from_numpy(np.column_stack([x, np.ones(len(x), np.float32)]))
        labels = torch.from_numpy(np.stack([np.clip(y, -_MAX_TARGET, _MAX_TARGET), ceiling]))
        batches = zip(*(each.split(BATCH_ROWS) for each in (inputs, *labels)), strict=True)
        for step, batch in enumerate(islice(batches, steps)):
            if not in_time():
                return step
            gradient = self._gradient.of(*batch)
            norm = float(torch.dot(gradient, gradient)) ** 0.5
            if norm > _GRADIENT_NORM:
                gradient.mul_(_GRADIENT_NORM / norm)
            self._adam.step(gradient, decay=decay)
        return steps
