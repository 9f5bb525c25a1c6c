"""A trained model as the router serves it: numpy, immutable, bounded.

    residual(x) = 2.5 * tanh(MLP(standardise(x)))      predicted = base * exp(residual)

In       float32 [candidates, features], as encode() gives it.
Out      float32 [candidates], natural logarithms, within +-MAX_RESIDUAL whatever
         the weights and inputs are: a bad model can misjudge an engine by a factor
         of 12 at most, and cannot hide that an engine is 100 times as loaded.
Cost     0.03 ms for 16 candidates.
Errors   ModelFormatError from the constructor if parts do not fit together.

Torch trains it elsewhere; this module must stay free of it, for the router's
memory and start time.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lodestar_router.core.types import FloatMatrix, FloatVector
from lodestar_router.features.rates import TtftRates
from lodestar_router.features.scaling import Scaler
from lodestar_router.features.schema import NUM_FEATURES, SCHEMA_VERSION

MAX_RESIDUAL = 2.5  # ln: a factor of 12 either way
# As arrays without dimensions, which ufuncs take fastest.
_BOUND, _ZERO = np.array(MAX_RESIDUAL, np.float32), np.array(0.0, np.float32)

POOLED = "pooled"  # the key of `spread` that stands for every kind not named
DEFAULT_SPREAD = 0.5  # ln: a factor of 1.65; what nothing is known of is taken for that uncertain

Layer = tuple[FloatMatrix, FloatVector]  # weight [inputs, outputs], bias [outputs]


class ModelFormatError(ValueError):
    """Bytes or arrays that are not a model this version can serve."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PublishedModel:
    """One version of rates and weights; replaced as a whole, never edited."""

    version: int  # rises with every publication
    rates: TtftRates
    scaler: Scaler
    layers: tuple[Layer, ...]  # ReLU between, the last gives one output
    trusted: bool  # false: the rates are good, the residual is not to be used
    # Standard deviation, by GPU kind and POOLED, of ln(observed / predicted) around 0, on
    # rows the version was not fitted on. About 90 % of TTFTs are within a factor of
    # exp(1.645 * spread) of their prediction.
    spread: Mapping[str, float] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ModelFormatError(
                f"model has feature schema {self.schema_version}, this router {SCHEMA_VERSION}"
            )
        width = NUM_FEATURES
        _check_shape("mean", self.scaler.mean, (width,))
        _check_shape("std", self.scaler.std, (width,))
        for number, (weight, bias) in enumerate(self.layers):
            outputs = bias.size
            _check_shape(f"bias {number}", bias, (outputs,))
            _check_shape(f"weight {number}", weight, (width, outputs))
            width = outputs
        if width != 1 or not self.layers:
            raise ModelFormatError(f"the last layer must give 1 output, not {width}")
        if not (self.scaler.std > 0).all():
            raise ModelFormatError("a standard deviation is not positive")
        if not all(math.isfinite(spread) and spread >= 0 for spread in self.spread.values()):
            raise ModelFormatError("a spread is out of range")

    def spread_of(self, gpu: str) -> float:
        """How far ln(observed / predicted) strays on this kind; the pooled one if it is unknown."""
        return self.spread.get(gpu, self.spread.get(POOLED, DEFAULT_SPREAD))

    def residual(self, features: FloatMatrix) -> FloatVector:
        """ln(TTFT / base) the net expects, [candidates]; see the module's formula."""
        hidden = self.scaler.standardise(features)
        last = len(self.layers) - 1
        for number, (weight, bias) in enumerate(self.layers):
            hidden = hidden.dot(weight)  # half the time of `@`, for so few rows
            hidden += bias
            if number < last:
                np.maximum(hidden, _ZERO, out=hidden)
        residual: FloatVector = np.tanh(hidden[:, 0])
        residual *= _BOUND
        return residual


def _check_shape(name: str, array: FloatMatrix | FloatVector, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise ModelFormatError(
            f"{name} is {array.dtype} {list(array.shape)}, not float32 {list(shape)}"
        )
    if not np.isfinite(array).all():
        raise ModelFormatError(f"{name} is not finite")
