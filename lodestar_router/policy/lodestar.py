"""The learned policy: a physical base, a bounded learned residual, a price for others' delay.

    predicted_i = base_i * exp(g_i + c_i)       cost_i = predicted_i + price_i, lowest wins

    base_i   t0 + (pending + own uncached tokens) * s_per_token, rates of i's GPU kind
    g_i      residual of the served net, |g| <= 2.5; 0 without a trusted model
    c_i      the engine's recent log residual, |c| <= 4.5, within 1.5 of the fleet's
    price_i  seconds by which the choice delays later requests: see congestion.py

`c` stands outside the net and is measured against base * exp(g) alone (see
residual_tracker.prediction_error), so the two never explain the same error: the
net learns what features tell, within minutes and for good; `c` takes what is
left of one engine, within seconds and for as long as it lasts. As a feature it
would be both cause and effect of the net's own errors.

Near-ties go to the candidate with the least to compute, which costs the fleet
least; what is still equal is drawn by `rng`, lest equal engines be filled in order.

In       one request, its candidates; a PublishedModel or none.
Out      a Decision that is also the training input: features, base_s, predicted_ttft_s.
Cost     about 0.1 ms for 16 candidates.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import ClassVar

import numpy as np

from lodestar_router.core.types import Candidate, Decision, FloatVector, RoutedRequest
from lodestar_router.features.encode import encode
from lodestar_router.features.rates import TtftRates, own_uncached_tokens, work_tokens
from lodestar_router.features.residual_tracker import clipped
from lodestar_router.features.schema import SCHEMA_VERSION
from lodestar_router.features.serving import PublishedModel
from lodestar_router.policy.by_cost import reason_of
from lodestar_router.policy.congestion import CongestionPrice

# Closer than a prediction can tell apart: typical errors are tens of percent.
NEAR_TIE_RATIO = 0.02
NEAR_TIE_S = 0.001  # below this, timing noise of the network and the event loop rules


class LodestarPolicy:
    """Choose the engine with the lowest predicted TTFT; see the module's formula."""

    name: ClassVar[str] = "lodestar"
    reads_prompt: ClassVar[bool] = True

    def __init__(self, rng: Random, model: PublishedModel | None = None) -> None:
        self._rng = rng
        self._model = model
        self._untaught = TtftRates()
        self._congestion = CongestionPrice()

    @property
    def model(self) -> PublishedModel | None:
        """The version that the next choice uses."""
        return self._model

    def swap(self, model: PublishedModel | None) -> None:
        """Serve another version from the next choice on; None: the base alone."""
        self._model = model

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        """Choose, and keep everything that was looked at."""
        model = self._model
        rates = self._untaught if model is None else model.rates
        base_s = self._base_s(request, candidates, rates)
        features = encode(request, candidates, base_s)
        corrections = [clipped(candidate.engine.log_residual) for candidate in candidates]
        log_factor = np.array(corrections, dtype=np.float32)
        if model is not None and model.trusted:
            log_factor += model.residual(features)
        predicted_s = base_s * np.exp(log_factor)
        s_per_token = [
            rates.of(c.engine.gpu).s_per_token * math.exp(correction)
            for c, correction in zip(candidates, corrections, strict=True)
        ]
        work_s = [
            own_uncached_tokens(request, c) * s
            for c, s in zip(candidates, s_per_token, strict=True)
        ]
        own_s: list[float] = predicted_s.tolist()
        prices_s = self._congestion.prices_s(candidates, own_s, work_s, s_per_token, request.now_s)
        costs = [own + price for own, price in zip(own_s, prices_s, strict=True)]
        chosen, equal = self._lowest(request, candidates, costs)
        self._congestion.sent(candidates[chosen], work_s[chosen], request.now_s)
        return Decision(
            policy=self.name,
            candidates=tuple(candidates),
            chosen=chosen,
            costs=costs,
            reason=_reason(candidates, chosen, equal, own_s),
            propensity=1.0 / equal,
            features=features,
            base_s=base_s,
            predicted_ttft_s=predicted_s,
            model_version=None if model is None else model.version,
            schema_version=SCHEMA_VERSION,
        )

    @staticmethod
    def _base_s(
        request: RoutedRequest, candidates: Sequence[Candidate], rates: TtftRates
    ) -> FloatVector:
        return np.array(
            [rates.of(c.engine.gpu).base_s(work_tokens(request, c)) for c in candidates],
            dtype=np.float32,
        )

    def _lowest(
        self, request: RoutedRequest, candidates: Sequence[Candidate], costs: Sequence[float]
    ) -> tuple[int, int]:
        """(index chosen, how many were equal to it)."""
        lowest = min(costs)
        bound = max(lowest * (1.0 + NEAR_TIE_RATIO), lowest + NEAR_TIE_S)
        near = [index for index, cost in enumerate(costs) if cost <= bound]
        if len(near) == 1:
            return near[0], 1
        uncached = [own_uncached_tokens(request, candidates[index]) for index in near]
        fewest = min(uncached)
        equal = [index for index, own in zip(near, uncached, strict=True) if own == fewest]
        return self._rng.choice(equal), len(equal)


def _reason(
    candidates: Sequence[Candidate], chosen: int, equal: int, own_s: Sequence[float]
) -> str:
    """What decided; "price" if the request's own TTFT alone would have gone elsewhere."""
    if equal > 1:
        return "tie"
    lowest = min(own_s)
    if own_s[chosen] > max(lowest * (1.0 + NEAR_TIE_RATIO), lowest + NEAR_TIE_S):
        return "price"
    return reason_of(candidates, chosen)
