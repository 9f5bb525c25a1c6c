"""How far off each engine's predictions have been lately.

    value = sum(w * error) / (sum(w) + SHRINK_COUNT),   w halving with age and with
                                                        every later observation

An engine that turns slow (a busy neighbour, throttling) is noticed after a
handful of answers, without its identity in the net and without a training
round. Few or old observations count for little: the value returns to 0 by
itself, so an engine that is avoided for its past gets tried again.

In       error = ln(observed TTFT / predicted TTFT), where the prediction is *without*
         this correction (prediction_error gives it). Against the corrected one the
         tracker would chase its own tail and settle at half the true error.
Out      ln factor for the next prediction, within +-MAX_CORRECTION; unit: none.
Cost     O(1) and one small entry per engine.
"""

import math
from dataclasses import dataclass

from lodestar_router.core.types import Decision, EngineId

MAX_CORRECTION = 1.5  # a factor of 4.5: an engine slower than that gets hardly any traffic anyway
_MAX_ERROR = 3.0  # one outlier counts as a factor of 20 at most
_HALF_LIFE_S = 45.0  # long enough to hold between requests, short enough to retry an engine
_COUNT_MEMORY = 16.0  # observations: a change is two thirds noticed after as many
_SHRINK_COUNT = 4.0  # observations' worth of belief that the engine is as predicted


@dataclass(slots=True)
class _Sums:
    errors: float
    weight: float
    at_s: float

    def decay(self, now_s: float) -> float:
        """Factor by which age has reduced the sums since `at_s`."""
        return math.exp2(-max(0.0, now_s - self.at_s) / _HALF_LIFE_S)


class ResidualTracker:
    """Per engine a decaying, shrunk mean of log errors."""

    def __init__(self) -> None:
        self._sums: dict[EngineId, _Sums] = {}

    def observe(self, engine_id: EngineId, error: float, now_s: float) -> None:
        """Take in ln(observed / uncorrected prediction); what is not finite is ignored."""
        if not math.isfinite(error):
            return
        sums = self._sums.setdefault(engine_id, _Sums(0.0, 0.0, now_s))
        keep = sums.decay(now_s) * (1.0 - 1.0 / _COUNT_MEMORY)
        sums.errors = sums.errors * keep + min(max(error, -_MAX_ERROR), _MAX_ERROR)
        sums.weight = sums.weight * keep + 1.0
        sums.at_s = max(sums.at_s, now_s)

    def value(self, engine_id: EngineId, now_s: float) -> float:
        """The engine's correction now; 0 if nothing is known of it."""
        sums = self._sums.get(engine_id)
        if sums is None:
            return 0.0
        decay = sums.decay(now_s)
        return clipped(sums.errors * decay / (sums.weight * decay + _SHRINK_COUNT))

    def forget(self, engine_id: EngineId) -> None:
        """Drop an engine that left or restarted."""
        self._sums.pop(engine_id, None)


def clipped(log_residual: float) -> float:
    """The correction as applied to a prediction."""
    if math.isnan(log_residual):
        return 0.0
    return min(max(log_residual, -MAX_CORRECTION), MAX_CORRECTION)


def prediction_error(decision: Decision, ttft_s: float) -> float | None:
    """What ResidualTracker.observe wants to know of a decision whose first token came.

    None if the policy predicted nothing.
    """
    if decision.predicted_ttft_s is None:
        return None
    predicted_s = float(decision.predicted_ttft_s[decision.chosen])
    if not (ttft_s > 0 and predicted_s > 0):
        return None
    engine = decision.candidates[decision.chosen].engine
    return math.log(ttft_s / predicted_s) + clipped(engine.log_residual)
