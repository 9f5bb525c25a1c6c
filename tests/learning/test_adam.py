import numpy as np
import pytest
import torch
from torch import tensor

from lodestar_router.learning.adam import Adam


def test_it_steps_as_the_formula_says() -> None:
    """First step: both bias corrections cancel, so every weight moves by the rate."""
    weights = tensor([1.0, -2.0, 3.0])

    Adam(weights, rate=0.1).step(tensor([5.0, -0.01, 0.0]), decay=0.0)

    assert torch.allclose(weights, tensor([0.9, -1.9, 3.0]), atol=1e-5)


def test_many_steps_follow_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(20, 50, generator=generator)
    weights = torch.randn(50, generator=generator)
    w, m, v = weights.double().numpy().copy(), np.zeros(50), np.zeros(50)
    adam = Adam(weights, rate=0.01)

    for step, gradient in enumerate(gradients, start=1):
        adam.step(gradient, decay=0.1)
        g = gradient.double().numpy()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w -= 0.01 * (0.1 * w + m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8))

    assert weights.numpy() == pytest.approx(w, abs=1e-5)


def test_decay_shrinks_weights_apart_from_the_gradient() -> None:
    weights = tensor([2.0])

    Adam(weights, rate=0.1).step(tensor([0.0]), decay=0.5)

    assert torch.allclose(weights, tensor([1.9]))


def test_it_finds_the_bottom_of_an_ill_conditioned_bowl() -> None:
    weights = tensor([4.0, -4.0])
    adam = Adam(weights, rate=0.1)

    for _ in range(600):
        adam.step(2 * tensor([100.0, 0.1]) * weights, decay=0.0)

    assert weights.abs().max() < 0.05
