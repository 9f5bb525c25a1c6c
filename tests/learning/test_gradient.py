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


def batch(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets, and ceilings: every fourth row is a bound."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, NUM_FEATURES, generator=generator)
    ceiling = torch.full((ROWS,), HUBER)
    ceiling[::4] = 0.0
    return x, torch.randn(ROWS, generator=generator) * 2, ceiling


def by_autograd(net: ResidualNet, x: Tensor, y: Tensor, ceiling: Tensor) -> Tensor:
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
    loss = nn.functional.huber_loss(g, y, delta=HUBER, reduction="none")
    met = (ceiling == 0) & (g > y)
    loss[~met].sum().div(len(y)).backward()  # type: ignore[no-untyped-call]
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

    x, y, ceiling = batch(seed)
    found = gradient.of(*with_ones(x, y, ceiling))

    expected = by_autograd(net, x, y, ceiling)
    assert torch.allclose(found, expected, atol=1e-6)
    assert expected.abs().max() > 0.01, "the comparison is of more than zeros"


def test_a_bound_pulls_up_and_never_down() -> None:
    net = random_net(0)
    x, _, _ = batch(0)
    g = net.residual(x)
    gradient = LossGradient(net, ROWS)

    met = gradient.of(*with_ones(x, g - 0.3, torch.zeros(ROWS))).clone()
    missed = gradient.of(*with_ones(x, g + 0.3, torch.zeros(ROWS))).clone()
    labels = gradient.of(*with_ones(x, g + 0.3, torch.full((ROWS,), HUBER))).clone()

    assert met.abs().max() == 0
    assert torch.equal(missed, labels)
    assert labels.abs().max() > 0


def test_it_leaves_weights_and_batch_alone() -> None:
    net = random_net(0)
    given = (net.weights, *with_ones(*batch(0)))
    before = [each.clone() for each in given]

    LossGradient(net, ROWS).of(*given[1:])

    assert all(torch.equal(now, then) for now, then in zip(given, before, strict=True))


def with_ones(x: Tensor, y: Tensor, ceiling: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.column_stack([x, torch.ones(ROWS)]), y, ceiling
