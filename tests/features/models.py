"""Builders of published models and training rows for tests."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from lodestar_router.core.types import EngineId, FloatVector
from lodestar_router.features.rates import Rate, TtftRates
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.scaling import Scaler
from lodestar_router.features.schema import LOG_BASE, NUM_FEATURES, SCHEMA_VERSION
from lodestar_router.features.serving import Layer, PublishedModel

RATES = TtftRates(Rate(0.05, 1e-4), {"A30": Rate(0.02, 2e-4), "V100": Rate(0.04, 8e-4)})


def layers(seed: int = 0, scale: float = 0.3, hidden: tuple[int, ...] = (8,)) -> tuple[Layer, ...]:
    """Random weights of any width."""
    rng = np.random.default_rng(seed)
    sizes = (NUM_FEATURES, *hidden, 1)
    return tuple(
        (
            rng.normal(0, scale, (inputs, outputs)).astype(np.float32),
            rng.normal(0, scale, outputs).astype(np.float32),
        )
        for inputs, outputs in pairwise(sizes)
    )


def model(
    *,
    version: int = 1,
    trusted: bool = True,
    rates: TtftRates = RATES,
    weights: tuple[Layer, ...] | None = None,
    spread: Mapping[str, float] | None = None,
) -> PublishedModel:
    """A model that fits the schema."""
    return PublishedModel(
        version=version,
        rates=rates,
        scaler=Scaler(np.zeros(NUM_FEATURES, np.float32), np.ones(NUM_FEATURES, np.float32)),
        layers=layers() if weights is None else weights,
        trusted=trusted,
        spread={} if spread is None else spread,
    )


def row(
    features: FloatVector | None = None,
    *,
    work_tokens: int = 1000,
    gpu: str = "A30",
    ttft_s: float = 0.3,
    censored: bool = False,
    predicted_ttft_s: float = 0.25,
    schema_version: int = SCHEMA_VERSION,
    row_id: int = 0,
) -> TrainingRow:
    """A row whose features are zero but for the base, unless given."""
    if features is None:
        features = np.zeros(NUM_FEATURES, dtype=np.float32)
        features[LOG_BASE] = np.log(RATES.of(gpu).base_s(work_tokens))
    return TrainingRow(
        features=features,
        work_tokens=work_tokens,
        gpu=gpu,
        engine_id=EngineId("a"),
        ttft_s=ttft_s,
        censored=censored,
        model_version=None,
        predicted_ttft_s=predicted_ttft_s,
        schema_version=schema_version,
        row_id=row_id,
    )
