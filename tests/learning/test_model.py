import numpy as np
import pytest
import torch

from lodestar_router.features.scaling import Scaler
from lodestar_router.features.schema import NUM_FEATURES
from lodestar_router.features.serving import PublishedModel
from lodestar_router.learning.model import ResidualNet
from tests.features.models import RATES, layers


def net(seed: int = 0) -> ResidualNet:
    return ResidualNet(NUM_FEATURES, torch.Generator().manual_seed(seed))


def test_an_untrained_net_leaves_the_base_alone() -> None:
    x = torch.randn(9, NUM_FEATURES, generator=torch.Generator().manual_seed(1))

    assert net().residual(x).abs().max() == 0


def test_torch_and_serving_compute_the_same() -> None:
    trained = net()
    trained.load(layers(seed=3, scale=0.5, hidden=(64, 32)))
    rng = np.random.default_rng(0)
    scaler = Scaler(
        rng.normal(0, 1, NUM_FEATURES).astype(np.float32),
        rng.uniform(0.1, 3, NUM_FEATURES).astype(np.float32),
    )
    served = PublishedModel(
        version=1, rates=RATES, scaler=scaler, layers=trained.export(), trusted=True
    )
    features = rng.normal(0, 5, (40, NUM_FEATURES)).astype(np.float32)

    expected = trained.residual(torch.from_numpy(scaler.standardise(features))).numpy()

    assert served.residual(features) == pytest.approx(expected, abs=1e-5)
    assert np.abs(expected).max() > 0.5, "the comparison is of more than zeros"


def test_exported_weights_are_copies() -> None:
    trained = net()
    exported = trained.export()
    before = [array.copy() for layer in exported for array in layer]

    trained.weights.add_(1.0)

    after = [array for layer in exported for array in layer]
    assert all((now == then).all() for now, then in zip(after, before, strict=True))


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="another shape"):
        net().load(layers(hidden=(5,)))
