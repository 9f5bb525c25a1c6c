"""The learned policy: a physical base, a bounded learned residual, a price for others' delay.

    predicted_i = base_i * exp(g_i + c_i)
    cost_i      = predicted_i^1.5 / long_ttft^0.5 + price_i, lowest wins; other goals: objective.py

    base_i   t0 + (pending + own uncached tokens) * s_per_token, rates of i's GPU kind
    g_i      residual of the served net, |g| <= 2.5; 0 without trust (features/trust.py)
    c_i      the engine's recent log residual, |c| <= 4.5, within 1.5 of the fleet's
    price_i  seconds by which the choice delays later requests, for the time that it computes
             (congestion.py) and for the KV cache that it holds (room.py)

`c` stands outside the net and is measured against base * exp(g) alone (see
residual_tracker.prediction_error), so the two never explain the same error: the
net learns what features tell, within minutes and for good; `c` takes what is
left of one engine, within seconds and for as long as it lasts. As a feature it
would be both cause and effect of the net's own errors.

Near-ties and exploration: pick.py. What decided: reason.py.

In       one request, its candidates; a PublishedModel or none.
Out      a Decision that is also the training input: features, base_s, predicted_ttft_s.
Cost     about 0.1 ms for 16 candidates.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar, NamedTuple

import numpy as np

from lodestar_router.core.goal import DEFAULT_GOAL, Goal
from lodestar_router.core.types import Candidate, Decision, DecodeForecast, EngineId, RoutedRequest
from lodestar_router.features.decoding import Decoding
from lodestar_router.features.rates import own_uncached_tokens
from lodestar_router.features.schema import SCHEMA_VERSION
from lodestar_router.features.serving import PublishedModel
from lodestar_router.features.trust import TrustGate
from lodestar_router.policy.congestion import CongestionPrice
from lodestar_router.policy.objective import (
    NEED_DECODING,
    TAIL_SHARE,
    Prospects,
    objective_costs,
)
from lodestar_router.policy.pick import NO_EXPLORATION, Exploration, near_tie_bound, pick
from lodestar_router.policy.prediction import Prediction, predict
from lodestar_router.policy.reason import reason
from lodestar_router.policy.room import room_prices_s
from lodestar_router.policy.running_quantile import RunningQuantile


class _Appraisal(NamedTuple):
    """What every candidate would mean, lists [candidates]."""

    predicted: Prediction
    prices_s: list[float]
    goal: Goal
    forecast: DecodeForecast | None
    costs: list[float]


class LodestarPolicy:
    """Choose the engine with the lowest predicted TTFT; see the module's formula."""

    name: ClassVar[str] = "lodestar"
    reads_prompt: ClassVar[bool] = True

    def __init__(
        self,
        rng: Random,
        model: PublishedModel | None = None,
        *,
        goal: Goal = DEFAULT_GOAL,
        exploration: Exploration = NO_EXPLORATION,
        trust: TrustGate | None = None,
    ) -> None:
        self._rng = rng
        self._model: PublishedModel | None = None
        self._goal = goal
        self._exploration = exploration
        self.congestion = CongestionPrice()
        self.long_ttft_s = RunningQuantile(TAIL_SHARE)
        self.decoding = Decoding()  # fed by whoever sees answers end
        self.trust = trust or TrustGate()  # likewise
        self.swap(model)

    @property
    def model(self) -> PublishedModel | None:
        """The version that the next choice uses."""
        return self._model

    def swap(self, model: PublishedModel | None) -> None:
        """Serve another version from the next choice on; None: the base alone."""
        self._model = model
        self.trust.serve(model)

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        """Choose, and keep everything that was looked at."""
        decision = self.consider(request, candidates)
        self.sent(request, decision)
        return decision

    def sent(self, request: RoutedRequest, decision: Decision) -> None:
        """The request goes where a decision on this policy's predictions says."""
        chosen = decision.chosen
        if decision.predicted_ttft_s is not None:
            self.long_ttft_s.add(float(decision.predicted_ttft_s[chosen]))
        if decision.work_s is not None:
            candidate = decision.candidates[chosen]
            tokens = own_uncached_tokens(request, candidate)
            self.congestion.sent(candidate, tokens, decision.work_s[chosen], request.now_s)

    def prefers_another(
        self, request: RoutedRequest, candidates: Sequence[Candidate], engine_id: EngineId
    ) -> bool:
        """Whether the engine is not among the best for the request now, near-ties included."""
        costs = self._appraise(request, candidates).costs
        bound = near_tie_bound(min(costs))
        for candidate, cost in zip(candidates, costs, strict=True):
            if candidate.engine.engine_id == engine_id:
                return cost > bound
        return True

    def withdrawn(self, request: RoutedRequest, decision: Decision, now_s: float) -> None:
        """It was decided, and not sent: it will be decided anew."""
        if decision.work_s is not None:
            candidate = decision.candidates[decision.chosen]
            tokens, work_s = own_uncached_tokens(request, candidate), decision.work_s
            self.congestion.withdrawn(candidate, tokens, work_s[decision.chosen], now_s)

    def consider(
        self,
        request: RoutedRequest,
        candidates: Sequence[Candidate],
        *,
        with_residual: bool = True,
    ) -> Decision:
        """What `choose` would choose; nothing is sent yet.

        Args:
            with_residual: false for g = 0, as without a trusted model, and no exploring:
                the steady policy that the learned one falls back to.
        """
        model = self._model
        looked = self._appraise(request, candidates, with_residual=with_residual)
        predicted, costs = looked.predicted, looked.costs
        own_s = predicted.ttft_s
        exploration = self._exploration if with_residual else NO_EXPLORATION
        picked = pick(request, candidates, costs, exploration, self._rng)
        return Decision(
            policy=self.name,
            candidates=tuple(candidates),
            chosen=picked.chosen,
            costs=costs,
            reason=reason(
                candidates,
                picked,
                own_s=own_s,
                prices_s=looked.prices_s,
                distrusted_s=predicted.distrusted_s,
            ),
            propensity=picked.propensity,
            features=predicted.features,
            base_s=predicted.base_s,
            predicted_ttft_s=np.array(own_s, dtype=np.float32),
            model_version=None if model is None else model.version,
            schema_version=SCHEMA_VERSION,
            residuals=predicted.residuals,
            trusted=predicted.trusted,
            prices_s=looked.prices_s,
            work_s=predicted.work_s,
            goal=looked.goal,
            forecast=looked.forecast,
        )

    def _appraise(
        self,
        request: RoutedRequest,
        candidates: Sequence[Candidate],
        *,
        with_residual: bool = True,
    ) -> "_Appraisal":
        predicted = predict(
            self._model,
            request,
            candidates,
            with_residual=with_residual,
            trust=self.trust.trusted,
        )
        prices_s = self.prices_s(request, candidates, predicted)
        goal = request.goal or self._goal
        forecast = None
        if goal.objective in NEED_DECODING:
            forecast = self.decoding.forecast(request, candidates)
        prospects = Prospects(
            ttft_s=predicted.ttft_s,
            prices_s=prices_s,
            spread=predicted.spread,
            long_ttft_s=self.long_ttft_s.value,
            forecast=forecast,
        )
        return _Appraisal(predicted, prices_s, goal, forecast, objective_costs(goal, prospects))

    def prices_s(
        self, request: RoutedRequest, candidates: Sequence[Candidate], predicted: Prediction
    ) -> list[float]:
        """Seconds by which each choice would delay others."""
        time_s = self.time_prices_s(request, candidates, predicted)
        room_s = room_prices_s(
            request,
            candidates,
            output_tokens=self.decoding.expected_output_tokens(request),
            requests_per_s=self.congestion.requests_per_s(request.now_s),
        )
        return [time + room for time, room in zip(time_s, room_s, strict=True)]

    def time_prices_s(
        self, request: RoutedRequest, candidates: Sequence[Candidate], predicted: Prediction
    ) -> list[float]:
        """The part of it that is prefill."""
        return self.congestion.prices_s(
            candidates,
            predicted.ttft_s,
            predicted.uncached_tokens,
            predicted.s_per_token,
            request.now_s,
        )
