"""The residual net, shared by all engines.

    x [rows, features] -> ReLU(64) -> ReLU(32) -> 1;   g = 2.5 * tanh(.)   [rows]

The last layer starts at zero, so an untrained net leaves the base as it is.
No dropout: serving and training compute the same function.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from lodestar_router.features.serving import MAX_RESIDUAL, Layer

HIDDEN = (64, 32)


class ResidualNet(nn.Module):
    """The torch twin of PublishedModel.residual, after standardising."""

    def __init__(self, num_features: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = (num_features, *HIDDEN, 1)
        self.linears = nn.ModuleList(
            nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)
        )
        for linear in self.linears[:-1]:
            assert isinstance(linear, nn.Linear)
            nn.init.xavier_uniform_(linear.weight, generator=generator)
            nn.init.zeros_(linear.bias)
        last = self.linears[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Standardised x [rows, features] -> g [rows]."""
        *hidden, last = self.linears
        for linear in hidden:
            x = torch.relu(linear(x))  # [rows, 64], then [rows, 32]
        g: Tensor = MAX_RESIDUAL * torch.tanh(last(x).squeeze(1))  # [rows, 1] -> [rows]
        return g

    def export(self) -> tuple[Layer, ...]:
        """Copies of the weights as the router serves them, [inputs, outputs]."""
        return tuple(
            (
                np.ascontiguousarray(linear.weight.detach().numpy().T, dtype=np.float32).copy(),
                linear.bias.detach().numpy().astype(np.float32),
            )
            for linear in self.linears
            if isinstance(linear, nn.Linear)
        )

    def load(self, layers: Sequence[Layer]) -> None:
        """Take over exported weights; ValueError if they are of another shape."""
        state = {}
        for number, (weight, bias) in enumerate(layers):
            state[f"linears.{number}.weight"] = torch.from_numpy(weight.T.copy())
            state[f"linears.{number}.bias"] = torch.from_numpy(bias.copy())
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError("the weights are of a net of another shape") from error
