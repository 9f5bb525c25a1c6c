"""Adam with decoupled weight decay, for a net of a few thousand weights.

    m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
    w = w (1 - lr decay) - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

torch.optim computes the same, and constructing any of its optimizers imports
torch's compiler: 0.9 s and 75 MB in the trainer process (torch 2.13), for nothing
used here.

Source   Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2.
"""

from collections.abc import Iterable

import torch

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Moments of the gradients of some parameters, and the step they give."""

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], *, rate: float, decay: float
    ) -> None:
        self._parameters = list(parameters)
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._rate = rate
        self._decay = decay
        self._steps = 0

    def step(self) -> None:
        """Move the parameters against their gradients, and clear those."""
        self._steps += 1
        mean_scale = 1.0 - _BETA1**self._steps
        square_scale = 1.0 - _BETA2**self._steps
        with torch.no_grad():
            for parameter, mean, square in zip(
                self._parameters, self._means, self._squares, strict=True
            ):
                gradient = parameter.grad
                if gradient is None:
                    continue
                mean.lerp_(gradient, 1.0 - _BETA1)
                square.lerp_(gradient.square(), 1.0 - _BETA2)
                parameter.mul_(1.0 - self._rate * self._decay)
                spread = (square / square_scale).sqrt_().add_(_EPSILON)
                parameter.addcdiv_(mean, spread, value=-self._rate / mean_scale)
                parameter.grad = None
