"""llm-d with its latency predictor: filters, predicted headroom, a weighted draw.

In       what the predictor reads; labels at first tokens.
Out      Decision; costs are predicted seconds to the first token, and before the
         first model what is missing to the highest composite score.
Cost     about 0.6 ms for 16 candidates; refits happen between decisions.
Source   llm-d/llm-d-router at ebab687, the chain of its Helm chart.

    1. affinity filter, 0.99     4. latency scorer
    2. headroom tiers, 1 %       5. weighted random picker
    3. affinity filter, 0.80

    affinity  keep those with a prefix score at the threshold, if any; keep all if the
              best of them is predicted 5 s slower than the best of the others
    tiers     headroom = SLO - predicted TTFT; keep those with headroom >= 0, if any,
              else all; where both kinds exist, 1 % of the time the others instead
    score     among headroom >= 0, else among the idle, else among all:
              (int((1 - n) * 100) + 1) / 100, n = |headroom| from 0 least to 1 most
    picker    drawn in proportion to the scores

A request without an SLO has SLO 0, as there: so the lowest TTFT scores highest, and
the draw spreads over the good ones. TTFT is learned from first tokens (streaming
mode). TPOT is not, so its headroom counts as 0, as llm-d has it where TPOT is not
trained. Before the first model, and as there: (1 - KV usage) + queue + prefix score.
A model serves `model_delay_s` after its refit: half a poll of the prediction servers.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

import numpy as np

from lodestar_router.core.types import (
    Candidate,
    Decision,
    FloatVector,
    Outcome,
    RoutedRequest,
)
from lodestar_router.policy.base import index_of_lowest
from lodestar_router.policy.by_cost import reason_of
from perf.routing.policies.llmd_predictor import (
    Fit,
    Predict,
    TtftPredictor,
    feature_rows,
    prefix_score,
    xgboost_fit,
)
from perf.routing.policies.simulation import Simulation

STRICT_AFFINITY, LOOSE_AFFINITY = 0.99, 0.80
MAX_PENALTY_MS = 5000.0
EXPLORE_NEGATIVE = 0.01
REFIT_INTERVAL_S = 10.0
MODEL_DELAY_S = 5.0
_EPSILON_MS = 1e-9


class LlmdPredicted:
    """The module's chain."""

    name: ClassVar[str] = "llmd_predicted"
    reads_prompt: ClassVar[bool] = True

    def __init__(
        self,
        rng: Random,
        *,
        slo_ttft_s: float = 0.0,
        refit_interval_s: float = REFIT_INTERVAL_S,
        model_delay_s: float = MODEL_DELAY_S,
        fit: Fit = xgboost_fit,
    ) -> None:
        self._rng = rng
        self._slo_ms = slo_ttft_s * 1000.0
        self._refit_interval_s, self._model_delay_s = refit_interval_s, model_delay_s
        self._predictor = TtftPredictor(fit)
        self._predict: Predict | None = None
        self._scored: dict[str, FloatVector] = {}  # chosen rows, until their label is known
        self._simulation: Simulation | None = None

    def attach(self, simulation: Simulation) -> None:
        """Learn from the simulation's labels, at its time."""
        self._simulation = simulation
        simulation.on_label(self._observe)
        simulation.call_at(simulation.now_s + self._refit_interval_s, self._refit, simulation)

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        rows = feature_rows(request, candidates)
        everyone = range(len(candidates))
        if self._predict is None:
            weights = _composite_scores(request, candidates)
            costs = [1.0 - weight for weight in weights]
            kept, chance = list(everyone), 1.0
        else:
            predicted_ms = self._predict(rows).tolist()
            costs = [ttft_ms / 1000.0 for ttft_ms in predicted_ms]
            affinity = [prefix_score(request, candidate) for candidate in candidates]
            kept = _sticky(everyone, affinity, predicted_ms, STRICT_AFFINITY)
            kept, chance = self._tier(kept, predicted_ms)
            kept = _sticky(kept, affinity, predicted_ms, LOOSE_AFFINITY)
            weights = self._scores(kept, candidates, predicted_ms)
        chosen, share = self._draw(kept, weights)
        if self._simulation is not None:
            self._scored[request.request_id] = rows[chosen]
        return Decision(
            policy=self.name,
            candidates=tuple(candidates),
            chosen=chosen,
            costs=costs,
            reason=reason_of(candidates, chosen),
            propensity=chance * share,
        )

    def _tier(self, kept: list[int], predicted_ms: Sequence[float]) -> tuple[list[int], float]:
        """(those of one tier, the probability of that tier)."""
        positive = [index for index in kept if predicted_ms[index] <= self._slo_ms]
        negative = [index for index in kept if predicted_ms[index] > self._slo_ms]
        if not positive or not negative:
            return kept, 1.0
        if self._rng.random() < EXPLORE_NEGATIVE:
            return negative, EXPLORE_NEGATIVE
        return positive, 1.0 - EXPLORE_NEGATIVE

    def _scores(
        self, kept: Sequence[int], candidates: Sequence[Candidate], predicted_ms: Sequence[float]
    ) -> list[float]:
        """0..1 per candidate; 0 for those that were filtered out or are in a worse group."""
        scored = [index for index in kept if predicted_ms[index] <= self._slo_ms]
        if not scored:
            scored = [i for i in kept if candidates[i].engine.inflight_requests == 0] or [*kept]
        headroom_ms = {index: abs(self._slo_ms - predicted_ms[index]) for index in scored}
        least, most = min(headroom_ms.values()), max(headroom_ms.values())
        scores = [0.0] * len(candidates)
        for index, own_ms in headroom_ms.items():
            place = (own_ms - least) / (most - least) if most - least > _EPSILON_MS else 0.5
            scores[index] = (int((1.0 - place) * 100) + 1) / 100
        return scores

    def _draw(self, kept: Sequence[int], weights: Sequence[float]) -> tuple[int, float]:
        """(index, its probability); uniform if all weights are 0."""
        own = [weights[index] for index in kept]
        total = sum(own)
        if total <= 0.0:
            return self._rng.choice(kept), 1.0 / len(kept)
        chosen = self._rng.choices(kept, own)[0]
        return chosen, weights[chosen] / total

    def _observe(self, request: RoutedRequest, decision: Decision, outcome: Outcome) -> None:
        row = self._scored.pop(request.request_id, None)
        if row is not None and outcome.ttft_s is not None:
            self._predictor.add(request.request_id, row, outcome.ttft_s)

    def _refit(self, simulation: Simulation) -> None:
        model = self._predictor.fitted()
        if model is not None:
            simulation.call_at(simulation.now_s + self._model_delay_s, self._serve, model)
        simulation.call_at(simulation.now_s + self._refit_interval_s, self._refit, simulation)

    def _serve(self, model: Predict) -> None:
        self._predict = model


class LlmdPredictedMax(LlmdPredicted):
    """The module's chain with llm-d's max-score picker at its end: ties random.

    Not what its chart sets up, but kinder to a predictor without SLOs, where the
    weighted draw leaves much to chance.
    """

    name: ClassVar[str] = "llmd_predicted_max"

    def _draw(self, kept: Sequence[int], weights: Sequence[float]) -> tuple[int, float]:
        place, tied = index_of_lowest([-weights[index] for index in kept], self._rng)
        return kept[place], 1.0 / tied


def _sticky(
    kept: Sequence[int],
    affinity: Sequence[float],
    predicted_ms: Sequence[float],
    threshold: float,
) -> list[int]:
    """The affinity filter."""
    sticky = [index for index in kept if affinity[index] >= threshold]
    others = [index for index in kept if affinity[index] < threshold]
    if not sticky or not others:
        return list(kept)
    penalty_ms = min(predicted_ms[i] for i in sticky) - min(predicted_ms[i] for i in others)
    return list(kept) if penalty_ms > MAX_PENALTY_MS else sticky


def _composite_scores(request: RoutedRequest, candidates: Sequence[Candidate]) -> list[float]:
    """0..1, in hundredths: free KV cache, short queue and prefix score in equal parts."""
    loads = [candidate.engine.load for candidate in candidates]
    waiting = np.array([0 if load is None else load.num_waiting_reqs for load in loads])
    most = waiting.max()
    queue = (most - waiting) / most if most else np.ones(len(candidates))
    free = np.array([1.0 if load is None else 1.0 - load.kv_cache_usage_ratio for load in loads])
    prefix = np.array([prefix_score(request, candidate) for candidate in candidates])
    scores: list[float] = (np.round((queue + free + prefix) / 3.0 * 100.0) / 100.0).tolist()
    return scores
