"""What the served model says of every candidate, before anything is chosen.

    predicted_i = base_i * exp(g_i + c_i), see lodestar.py

In       a request, its candidates, a PublishedModel or none.
Out      Prediction, arrays float32 [candidates] and the training inputs.
Cost     most of a choice: 0.1 ms for 16 candidates.
"""

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from lodestar_router.core.types import Candidate, FloatMatrix, FloatVector, RoutedRequest
from lodestar_router.features.encode import encode
from lodestar_router.features.rates import Rate, TtftRates, own_uncached_tokens
from lodestar_router.features.residual_tracker import clipped
from lodestar_router.features.serving import DEFAULT_SPREAD, PublishedModel

_UNTAUGHT = TtftRates()


class Prediction(Struct, frozen=True, kw_only=True, eq=False):
    """All that was computed; what stands in a Decision is kept as it is here."""

    features: FloatMatrix
    base_s: FloatVector
    residuals: FloatVector | None  # g, whether or not it is used; None without a model
    trusted: bool  # g is used
    ttft_s: list[float]
    distrusted_s: list[float] | None  # TTFT with a g that is not used
    spread: list[float]  # standard deviation of ln(observed / ttft_s)
    s_per_token: list[float]  # of prefill, the engine's recent error included
    uncached_tokens: list[int]  # of this request
    work_s: list[float]  # of prefill that it adds


def predict(
    model: PublishedModel | None,
    request: RoutedRequest,
    candidates: Sequence[Candidate],
    *,
    with_residual: bool,
    trust: bool = True,
) -> Prediction:
    """Predict; `with_residual` false is g = 0, whether or not the model is trusted.

    Args:
        trust: false for a g that is told and not used, whatever its trainer says of it.
    """
    rates = rates_of(model)
    kinds: dict[str, tuple[Rate, float]] = {}  # GPU kind -> rate, spread
    # For a few candidates numbers are faster than arrays.
    bases_s: list[float] = []
    ttft_s: list[float] = []
    spread: list[float] = []
    s_per_token: list[float] = []
    uncached: list[int] = []
    work_s: list[float] = []
    for candidate in candidates:
        engine = candidate.engine
        kind = kinds.get(engine.gpu)
        if kind is None:
            of_kind = DEFAULT_SPREAD if model is None else model.spread_of(engine.gpu)
            kind = kinds[engine.gpu] = rates.of(engine.gpu), of_kind
        rate, spread_of_kind = kind
        uncached_tokens = own_uncached_tokens(request, candidate)
        base_s = rate.base_s(uncached_tokens + engine.inflight_prefill_tokens)
        correction = math.exp(clipped(engine.log_residual))
        corrected_s_per_token = rate.s_per_token * correction
        bases_s.append(base_s)
        ttft_s.append(base_s * correction)
        spread.append(spread_of_kind)
        s_per_token.append(corrected_s_per_token)
        uncached.append(uncached_tokens)
        work_s.append(uncached_tokens * corrected_s_per_token)
    features = encode(request, candidates, bases_s)
    residuals: FloatVector | None = None
    trusted = False
    distrusted_s: list[float] | None = None
    if model is not None and with_residual:
        residuals, trusted = model.residual(features), model.trusted and trust
        learned_s = [ttft * math.exp(g) for ttft, g in zip(ttft_s, residuals.tolist(), strict=True)]
        if trusted:
            ttft_s = learned_s
        else:
            distrusted_s = learned_s
    return Prediction(
        features=features,
        base_s=np.array(bases_s, dtype=np.float32),
        residuals=residuals,
        trusted=trusted,
        ttft_s=ttft_s,
        distrusted_s=distrusted_s,
        spread=spread,
        s_per_token=s_per_token,
        uncached_tokens=uncached,
        work_s=work_s,
    )


def rates_of(model: PublishedModel | None) -> TtftRates:
    """The served rates, or those assumed before the first fit."""
    return _UNTAUGHT if model is None else model.rates
