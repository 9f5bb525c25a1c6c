"""The residual net, shared by all engines, as one vector of weights.

    x [features, rows] -> ReLU(64) -> ReLU(32) -> 1;   g = 2.5 * tanh(.)   [rows]

Every layer is a matrix [outputs, inputs + 1] whose last column is the bias; it meets
inputs under which a row of ones stands. All are views into one vector, so that a
gradient, a norm or an optimiser's step is one operation and not one per layer.

The last layer starts at zero, so an untrained net leaves the base as it is.
No dropout: serving and training compute the same function.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lodestar_router.features.serving import MAX_RESIDUAL, Layer

HIDDEN = (64, 32)


class ResidualNet:
    """The torch twin of PublishedModel.residual, after standardising."""

    def __init__(self, num_features: int, generator: torch.Generator) -> None:
        self._sizes = (num_features, *HIDDEN, 1)
        count = sum((inputs + 1) * outputs for inputs, outputs in pairwise(self._sizes))
        self.weights = torch.zeros(count)
        self.layers = self.as_layers(self.weights)
        for layer in self.layers[:-1]:
            drawn = torch.empty(layer.shape[0], layer.shape[1] - 1)
            layer[:, :-1] = nn.init.xavier_uniform_(drawn, generator=generator)

    def as_layers(self, vector: Tensor) -> tuple[Tensor, ...]:
        """Views of a vector shaped as `weights`, [outputs, inputs + 1] each."""
        layers, start = [], 0
        for inputs, outputs in pairwise(self._sizes):
            end = start + (inputs + 1) * outputs
            layers.append(vector[start:end].view(outputs, inputs + 1))
            start = end
        return tuple(layers)

    def residual(self, x: Tensor) -> Tensor:
        """Standardised x [rows, features] -> g [rows]."""
        *hidden, last = self.layers
        activation = x.T  # [features, rows]
        for layer in hidden:
            activation = torch.relu(layer[:, :-1] @ activation + layer[:, -1:])
        g: Tensor = MAX_RESIDUAL * torch.tanh(last[0, :-1] @ activation + last[0, -1])
        return g

    def export(self) -> tuple[Layer, ...]:
        """Copies of the weights as the router serves them, [inputs, outputs]."""
        return tuple(
            (layer[:, :-1].numpy().T.copy(), layer[:, -1].numpy().copy()) for layer in self.layers
        )

    def load(self, layers: Sequence[Layer]) -> None:
        """Take over exported weights; ValueError if they are of another shape."""
        wanted = [(layer.shape[1] - 1, layer.shape[0]) for layer in self.layers]
        if [weight.shape for weight, _ in layers] != wanted:
            raise ValueError("the weights are of a net of another shape")
        for layer, (weight, bias) in zip(self.layers, layers, strict=True):
            layer[:, :-1] = torch.from_numpy(weight.T.copy())
            layer[:, -1] = torch.from_numpy(bias.copy())
