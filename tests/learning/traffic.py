"""Synthetic traffic for learner tests: engines whose TTFT the base cannot explain alone."""

import math
from collections.abc import Iterator

import numpy as np

from lodestar_router.core.types import FloatVector
from lodestar_router.features.encode import encode
from lodestar_router.features.rates import Rate, TtftRates, work_tokens
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.schema import SCHEMA_VERSION
from lodestar_router.features.serving import PublishedModel
from tests.factories import candidate, load, request

TRUE_RATES = TtftRates(
    Rate(0.03, 2e-4), {"A30": Rate(0.02, 1.5e-4), "V100": Rate(0.05, 6e-4)}
)  # fmt: skip


def true_ttft_s(base_s: float, running: int, usage: float) -> float:
    """Decoding neighbours slow every step; a full KV cache makes requests wait."""
    return base_s * (1.0 + 0.04 * running) + (2.0 if usage > 0.9 else 0.0)


def rows(
    count: int, seed: int, served: PublishedModel | None = None, noise: float = 0.1
) -> Iterator[TrainingRow]:
    """Requests as scored by `served` (nothing: the default rates), with their TTFT."""
    rng = np.random.default_rng(seed)
    rates = TtftRates() if served is None else served.rates
    for _ in range(count):
        running, usage = int(rng.integers(0, 40)), float(rng.uniform(0.1, 1.0))
        asked = request(prompt_tokens=int(rng.integers(50, 6000)), now_s=1.0)
        engine = candidate(
            "a",
            gpu="A30" if rng.random() < 0.6 else "V100",
            cached_prefix_tokens=int(asked.prompt_tokens * rng.uniform(0, 0.9)),
            inflight_requests=running,
            inflight_prefill_tokens=int(rng.exponential(1500)),
            load=load(num_running_reqs=running, kv_cache_usage_ratio=usage),
        )
        work = work_tokens(asked, engine)
        gpu = engine.engine.gpu
        base_s: FloatVector = np.array([rates.of(gpu).base_s(work)], dtype=np.float32)
        features = encode(asked, [engine], base_s)
        g = 0.0 if served is None or not served.trusted else float(served.residual(features)[0])
        truth_s = true_ttft_s(TRUE_RATES.of(gpu).base_s(work), running, usage)
        yield TrainingRow(
            features=features[0],
            work_tokens=work,
            gpu=gpu,
            engine_id=engine.engine.engine_id,
            ttft_s=truth_s * math.exp(noise * rng.standard_normal()),
            censored=False,
            model_version=None if served is None else served.version,
            predicted_ttft_s=float(base_s[0]) * math.exp(g),
            schema_version=SCHEMA_VERSION,
        )
