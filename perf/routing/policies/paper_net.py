"""The Lodestar paper's reward model: a plain MLP on scaled features, refitted from nothing.

    x [rows, features] -> ReLU(128) -> ReLU(128) -> ReLU(128) -> 1        reward = -TTFT in s

In       the feature rows of every candidate of past decisions, who was chosen, rewards.
Out      RewardModel.
Cost     about 1.5 s for 11,000 decisions on one core.
Errors   none.
Source   gangmuk/Lodestar at 23da2a0: Xavier-uniform weights, bias 0.01, MSE on the chosen
         candidate, Adam 3e-4 with L2 1e-5, gradient norm 1.0, rate x 0.95 per epoch, 50
         epochs of batches of 256, a random fifth held out (there it is only logged),
         seed 42. Dropout 0.1 behind the first two layers, while training only: there
         it is left on in serving.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lodestar_router.core.types import FloatMatrix, FloatVector

HIDDEN = (128, 128, 128)
EPOCHS, BATCH_ROWS = 50, 256
RATE, RATE_DECAY, L2, MAX_GRADIENT_NORM = 3e-4, 0.95, 1e-5, 1.0
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam
DROPOUT, DROPOUT_LAYERS = 0.1, 2  # behind the first hidden layers
BIAS = 0.01
HELD_OUT = 0.2
SEED = 42
Layers = Sequence[tuple[FloatMatrix, FloatVector]]  # [inputs, outputs], [outputs]
_CONSTANT = 1e-8  # deviation below which a feature is left as it is


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledDecision:
    """One decision and what became of it."""

    rows: FloatMatrix  # float32 [candidates, features], unscaled, as scored
    chosen: int
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RewardModel:
    """A trained net and the window it was trained on."""

    mean: FloatVector  # float32 [features], over all candidates of the window
    deviation: FloatVector  # float32 [features], 1 where it would be 0
    low: FloatVector  # float32 [features]: range of the window
    high: FloatVector
    layers: Layers

    def reward(self, rows: FloatMatrix) -> FloatVector:
        """[candidates, features] -> [candidates]."""
        return _forward(self.layers, (rows - self.mean) / self.deviation)[-1][:, 0]

    def knows(self, row: FloatVector) -> bool:
        """Whether every feature is within the range that was trained on."""
        return bool(((row >= self.low) & (row <= self.high)).all())


def train(window: Sequence[LabelledDecision], scaled: npt.NDArray[np.bool_]) -> RewardModel:
    """One round; `scaled` [features] marks those that are standardised."""
    pooled = np.concatenate([decision.rows for decision in window])
    mean, deviation = pooled.mean(axis=0), pooled.std(axis=0)
    fixed = ~scaled | (deviation < _CONSTANT)
    mean[fixed], deviation[fixed] = 0.0, 1.0
    chosen = np.array([decision.rows[decision.chosen] for decision in window])
    x: FloatMatrix = (chosen - mean) / deviation
    y = np.array([decision.reward for decision in window], dtype=np.float32)
    rng = np.random.default_rng(SEED)
    kept = rng.permutation(len(window))[int(len(window) * HELD_OUT) :]
    return RewardModel(
        mean=mean,
        deviation=deviation,
        low=pooled.min(axis=0),
        high=pooled.max(axis=0),
        layers=_fit(x[kept], y[kept], rng),
    )


def _fit(x: FloatMatrix, y: FloatVector, rng: np.random.Generator) -> Layers:
    sizes = list(pairwise((x.shape[1], *HIDDEN, 1)))
    weights: FloatVector = np.empty(sum(m * n + n for m, n in sizes), dtype=np.float32)
    layers = _views(weights, sizes)
    for (weight, bias), (inputs, outputs) in zip(layers, sizes, strict=True):
        limit = np.sqrt(6.0 / (inputs + outputs))
        weight[:] = rng.uniform(-limit, limit, weight.shape)
        bias[:] = BIAS
    gradient, mean, square = (np.zeros_like(weights) for _ in range(3))
    slopes = _views(gradient, sizes)
    steps, rate = 0, RATE
    for _ in range(EPOCHS):
        order = rng.permutation(len(x))
        for start in range(0, len(x), BATCH_ROWS):
            batch = order[start : start + BATCH_ROWS]
            _backward(layers, slopes, x[batch], y[batch], rng)
            norm = float(np.linalg.norm(gradient))
            gradient *= min(1.0, MAX_GRADIENT_NORM / (norm + 1e-6))
            gradient += L2 * weights
            steps += 1
            mean += (1.0 - BETA1) * (gradient - mean)
            square += (1.0 - BETA2) * (gradient * gradient - square)
            spread = np.sqrt(square / (1.0 - BETA2**steps)) + EPSILON
            weights -= rate / (1.0 - BETA1**steps) * mean / spread
        rate *= RATE_DECAY
    return layers


def _views(flat: FloatVector, sizes: Sequence[tuple[int, int]]) -> Layers:
    """One vector as weights [inputs, outputs] and biases [outputs]."""
    views, start = [], 0
    for inputs, outputs in sizes:
        middle, end = start + inputs * outputs, start + inputs * outputs + outputs
        views.append((flat[start:middle].reshape(inputs, outputs), flat[middle:end]))
        start = end
    return views


def _forward(
    layers: Layers, x: FloatMatrix, masks: Sequence[FloatMatrix] = ()
) -> list[FloatMatrix]:
    """What enters each layer, [rows, 128] inside, and the output [rows, 1] last."""
    entering = [x]
    for number, (weight, bias) in enumerate(layers):
        x = x @ weight + bias
        if number < len(layers) - 1:
            x = np.maximum(x, np.float32(0.0))
        if number < len(masks):
            x = x * masks[number]
        entering.append(x)
    return entering


def _backward(
    layers: Layers, slopes: Layers, x: FloatMatrix, y: FloatVector, rng: np.random.Generator
) -> None:
    """Write the gradient of the mean squared error into `slopes`."""
    shapes = [(len(x), width) for width in HIDDEN[:DROPOUT_LAYERS]]
    kept = np.float32(1.0 / (1.0 - DROPOUT))
    masks = [(rng.random(shape, dtype=np.float32) >= DROPOUT) * kept for shape in shapes]
    *entering, out = _forward(layers, x, masks)
    error: FloatMatrix = (out - y[:, np.newaxis]) * np.float32(2.0 / len(x))
    for number in reversed(range(len(layers))):
        slopes[number][0][:] = entering[number].T @ error
        slopes[number][1][:] = error.sum(axis=0)
        if number:
            # Zero where ReLU or dropout let nothing through.
            error = (error @ layers[number][0].T) * (entering[number] > 0.0)
            if number <= len(masks):
                error = error * masks[number - 1]
