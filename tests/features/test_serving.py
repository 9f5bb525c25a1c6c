import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from lodestar_router.features.model_codec import decode_model, encode_model
from lodestar_router.features.schema import NUM_FEATURES
from lodestar_router.features.serving import (
    DEFAULT_SPREAD,
    MAX_RESIDUAL,
    POOLED,
    Layer,
    ModelFormatError,
    PublishedModel,
)
from tests.features.models import RATES, layers, model


def test_a_residual_is_bounded_for_any_input_and_weight() -> None:
    extreme = np.array(
        [np.full(NUM_FEATURES, v) for v in (0.0, 1e30, -1e30, np.nan, np.inf, -np.inf)],
        dtype=np.float32,
    )

    residual = model(weights=layers(scale=1e4)).residual(extreme)

    assert residual.shape == (6,)
    assert residual.dtype == np.float32
    assert (np.abs(residual) <= MAX_RESIDUAL).all()


def test_candidates_are_scored_alone() -> None:
    features = np.random.default_rng(1).normal(0, 2, (5, NUM_FEATURES)).astype(np.float32)
    published = model()

    together = published.residual(features)

    for number, one in enumerate(features):
        assert published.residual(one[None])[0] == pytest.approx(together[number], abs=1e-5)


def test_a_model_survives_its_bytes() -> None:
    sent = model(version=7, trusted=False, spread={POOLED: 0.25, "A30": 0.125})
    features = np.random.default_rng(2).normal(0, 2, (3, NUM_FEATURES)).astype(np.float32)

    received = decode_model(encode_model(sent))

    assert (received.version, received.trusted) == (7, False)
    assert received.rates == RATES
    assert received.spread == sent.spread
    assert (received.residual(features) == sent.residual(features)).all()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"\x80\x04K\x01." + data, id="another-format"),
        pytest.param(lambda data: data[:-1], id="truncated-by-one"),
        pytest.param(lambda data: data[:60], id="truncated-in-header"),
        pytest.param(lambda data: data[:200] + b"\xff" + data[201:], id="one-byte-altered"),
        pytest.param(lambda data: data + b"\0", id="longer"),
    ],
)
def test_spoiled_bytes_are_refused(spoil: object) -> None:
    assert callable(spoil)

    with pytest.raises(ModelFormatError):
        decode_model(spoil(encode_model(model())))


def resigned(header: object) -> bytes:
    """A well-formed file around any header."""
    import hashlib
    import struct

    from lodestar_router.features.model_codec import MAGIC

    text = json.dumps(header).encode()
    data = MAGIC + struct.pack("<I", len(text)) + text
    return data + hashlib.sha256(data).digest()


@pytest.mark.parametrize(
    "header",
    [
        [],
        {},
        {"shapes": [[2]]},
        {"shapes": []},
        {"shapes": [["x"]]},
        {"shapes": [[-1], [0]]},
    ],
    ids=repr,
)
def test_a_header_that_makes_no_sense_is_refused(header: object) -> None:
    with pytest.raises(ModelFormatError):
        decode_model(resigned(header))


def test_another_schema_is_refused_by_name() -> None:
    data = encode_model(model())
    old = data[: data.rindex(b"}") + 1].replace(b'"schema_version": 2', b'"schema_version": 0')
    altered = old + data[len(old) : -32]
    import hashlib

    with pytest.raises(ModelFormatError, match="feature schema 0, this router 2"):
        decode_model(altered + hashlib.sha256(altered).digest())


@pytest.mark.parametrize(
    ("spread", "of_a30", "of_h100"),
    [
        pytest.param({"A30": 0.1, POOLED: 0.2}, 0.1, 0.2, id="unknown-kinds-are-like-the-fleet"),
        pytest.param({}, DEFAULT_SPREAD, DEFAULT_SPREAD, id="nothing-known"),
    ],
)
def test_a_kind_s_spread(spread: dict[str, float], of_a30: float, of_h100: float) -> None:
    published = model(spread=spread)

    assert (published.spread_of("A30"), published.spread_of("H100")) == (of_a30, of_h100)


@pytest.mark.parametrize("spread", [float("nan"), -0.1, float("inf")])
def test_a_spread_out_of_range_is_refused(spread: float) -> None:
    with pytest.raises(ModelFormatError, match="spread"):
        model(spread={POOLED: spread})


def narrow() -> tuple[Layer, ...]:
    return ((np.zeros((NUM_FEATURES - 1, 1), np.float32), np.zeros(1, np.float32)),)


def two_outputs() -> tuple[Layer, ...]:
    return ((np.zeros((NUM_FEATURES, 2), np.float32), np.zeros(2, np.float32)),)


def not_finite() -> tuple[Layer, ...]:
    return ((np.full((NUM_FEATURES, 1), np.nan, np.float32), np.zeros(1, np.float32)),)


@pytest.mark.parametrize("weights", [narrow(), two_outputs(), not_finite(), ()],
                         ids=["narrow", "two-outputs", "not-finite", "no-layers"])  # fmt: skip
def test_parts_that_do_not_fit_are_refused(weights: tuple[Layer, ...]) -> None:
    with pytest.raises(ModelFormatError):
        model(weights=weights)


def test_a_zero_deviation_is_refused() -> None:
    good = model()
    flat = replace(good.scaler, std=np.zeros(NUM_FEATURES, np.float32))

    with pytest.raises(ModelFormatError, match="not positive"):
        PublishedModel(version=1, rates=RATES, scaler=flat, layers=good.layers, trusted=True)


def test_the_router_s_side_never_imports_torch() -> None:
    code = (
        "import sys, lodestar_router.trainer.link, lodestar_router.trainer.serve, "
        "lodestar_router.learning.checkpoint, lodestar_router.policy.lodestar; "
        "sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
