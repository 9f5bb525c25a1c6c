import torch

from lodestar_router.learning.adam import Adam


def test_it_steps_as_the_formula_says() -> None:
    """First step: both bias corrections cancel, so every weight moves by the rate."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    adam = Adam([weight], rate=0.1, decay=0.0)

    (weight * torch.tensor([5.0, -0.01, 0.0])).sum().backward()  # type: ignore[no-untyped-call]
    adam.step()

    assert torch.allclose(weight, torch.tensor([0.9, -1.9, 3.0]), atol=1e-5)
    assert weight.grad is None


def test_decay_shrinks_weights_apart_from_the_gradient() -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    adam = Adam([weight], rate=0.1, decay=0.5)

    (weight * 0.0).sum().backward()  # type: ignore[no-untyped-call]
    adam.step()

    assert torch.allclose(weight, torch.tensor([1.9]))


def test_it_finds_the_bottom_of_an_ill_conditioned_bowl() -> None:
    weight = torch.nn.Parameter(torch.tensor([4.0, -4.0]))
    adam = Adam([weight], rate=0.1, decay=0.0)

    for _ in range(600):
        (torch.tensor([100.0, 0.1]) * weight.square()).sum().backward()  # type: ignore[no-untyped-call]
        adam.step()

    assert weight.abs().max() < 0.05


def test_a_parameter_without_a_gradient_stays() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))

    Adam([weight], rate=0.1, decay=0.1).step()

    assert weight.item() == 1.0
