from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from lodestar_router.features.schema import NUM_FEATURES
from lodestar_router.learning.gradient import HUBER, LossGradient
from lodestar_router.learning.model import HIDDEN, ResidualNet

ROWS = 32


def random_net(seed: int) -> ResidualNet:
    generator = torch.Generator().manual_seed(seed)
    net = ResidualNet(NUM_FEATURES, generator)
    net.weights.copy_(torch.randn(len(net.weights), generator=generator) * 0.3)
    return net


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, NUM_FEATURES, generator=generator)
    return x, torch.randn(ROWS, generator=generator) * 2


def by_autograd(net: ResidualNet, x: Tensor, y: Tensor) -> Tensor:
    """The gradient as torch derives it, of the same net built from torch's own layers."""
    linears: list[nn.Linear] = []
    for layer, (inputs, outputs) in zip(
        net.layers, pairwise((NUM_FEATURES, *HIDDEN, 1)), strict=True
    ):
        linear = nn.Linear(inputs, outputs)
        linear.weight.data = layer[:, :-1].clone()
        linear.bias.data = layer[:, -1].clone()
        linears.append(linear)
    first, second, last = linears
    g = 2.5 * torch.tanh(last(torch.relu(second(torch.relu(first(x))))).squeeze(1))
    nn.functional.huber_loss(g, y, delta=HUBER).backward()  # type: ignore[no-untyped-call]
    parts = []
    for linear in linears:
        assert linear.weight.grad is not None
        assert linear.bias.grad is not None
        parts.append(torch.column_stack([linear.weight.grad, linear.bias.grad]).flatten())
    return torch.cat(parts)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_what_autograd_derives(seed: int) -> None:
    net = random_net(seed)
    gradient = LossGradient(net, ROWS)
    gradient.of(*with_ones(*batch(seed + 100)))  # buffers carry nothing over

    x, y = batch(seed)
    found = gradient.of(*with_ones(x, y))

    expected = by_autograd(net, x, y)
    assert torch.allclose(found, expected, atol=1e-6)
    assert expected.abs().max() > 0.01, "the comparison is of more than zeros"


def test_it_leaves_weights_and_batch_alone() -> None:
    net = random_net(0)
    x, y = with_ones(*batch(0))
    before = [each.clone() for each in (net.weights, x, y)]

    LossGradient(net, ROWS).of(x, y)

    assert all(
        torch.equal(now, then) for now, then in zip((net.weights, x, y), before, strict=True)
    )


def with_ones(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return torch.column_stack([x, torch.ones(ROWS)]), y
