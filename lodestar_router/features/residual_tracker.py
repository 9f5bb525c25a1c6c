"""How far off each engine's predictions have been lately.

    fleet  = sum(w * error) / (sum(w) + SHRINK)                  over all engines
    value  = fleet + sum(w * (error - fleet)) / (sum(w) + SHRINK)      over the engine's own

with weights that halve with age and fade with every later observation.

An engine that turns slow (a busy neighbour, throttling) is noticed after a
handful of answers, without its identity in the net and without a training
round. An engine is drawn to the fleet, not to zero: when all predictions are off
by one factor, as before the first fit, an engine with few observations must not
look slower or faster than one with many. Few or old observations count for
little, so an engine that is avoided for its past gets tried again.

In       error = ln(observed TTFT / predicted TTFT), where the prediction is *without*
         this correction (prediction_error gives it). Against the corrected one the
         tracker would chase its own tail and settle at half the true error.
Out      ln factor for the next prediction, within +-MAX_CORRECTION.
Cost     O(1) and one small entry per engine.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lodestar_router.core.types import Decision, EngineId

MAX_DEVIATION = 1.5  # a factor of 4.5 between engines: slower ones get hardly any traffic anyway
_MAX_FLEET = 3.0  # a factor of 20: how wrong the default rates may be for a tiny model
MAX_CORRECTION = MAX_DEVIATION + _MAX_FLEET
_MAX_ERROR = 4.0  # one outlier counts as a factor of 55 at most
_HALF_LIFE_S = 45.0  # long enough to hold between requests, short enough to retry an engine
_COUNT_MEMORY = 16.0  # observations: a change is two thirds noticed after as many
_SHRINK = 4.0  # observations' worth of belief that the engine is like the fleet


@dataclass(slots=True)
class _Mean:
    """A decaying sum of errors and of their weights, as of `at_s`."""

    at_s: float
    errors: float = 0.0
    weight: float = 0.0

    def add(self, error: float, now_s: float) -> None:
        keep = self._decay(now_s) * (1.0 - 1.0 / _COUNT_MEMORY)
        self.errors = self.errors * keep + error
        self.weight = self.weight * keep + 1.0
        self.at_s = max(self.at_s, now_s)

    def towards(self, prior: float, now_s: float) -> float:
        """How far the mean is from `prior`, shrunk."""
        decay = self._decay(now_s)
        return decay * (self.errors - self.weight * prior) / (self.weight * decay + _SHRINK)

    def _decay(self, now_s: float) -> float:
        passed_s = now_s - self.at_s
        return math.exp2(-passed_s / _HALF_LIFE_S) if passed_s > 0.0 else 1.0


class ResidualTracker:
    """Per engine a decaying mean of log errors, drawn to that of the fleet."""

    def __init__(self) -> None:
        self._engines: dict[EngineId, _Mean] = {}
        self._fleet = _Mean(0.0)
        self._fleet_value: tuple[float, float] | None = None  # (now_s, value) last asked for

    def observe(self, engine_id: EngineId, error: float, now_s: float) -> None:
        """Take in ln(observed / uncorrected prediction); what is not finite is ignored."""
        if not math.isfinite(error):
            return
        error = _limited(error, _MAX_ERROR)
        self._fleet.add(error, now_s)
        self._fleet_value = None
        self._engines.setdefault(engine_id, _Mean(now_s)).add(error, now_s)

    def value(self, engine_id: EngineId, now_s: float) -> float:
        """The engine's correction now; the fleet's if nothing is known of it."""
        if not self._fleet.weight:
            return 0.0
        known = self._fleet_value
        if known is None or known[0] != now_s:
            fleet = _limited(self._fleet.towards(0.0, now_s), _MAX_FLEET)
            known = self._fleet_value = now_s, fleet
        fleet = known[1]
        engine = self._engines.get(engine_id)
        if engine is None:
            return fleet
        return fleet + _limited(engine.towards(fleet, now_s), MAX_DEVIATION)

    def state(self, now_s: float) -> dict[str, list[float]]:
        """Everything known, for `restore`; the fleet is under ""."""
        means: list[tuple[str, _Mean]] = [("", self._fleet), *self._engines.items()]
        return {name: [now_s - mean.at_s, mean.errors, mean.weight] for name, mean in means}

    def restore(self, state: Mapping[str, Sequence[float]], now_s: float, passed_s: float) -> None:
        """Go on from a `state` of so long ago; ValueError or TypeError if it is none."""
        means = {
            name: _Mean(now_s - passed_s - float(age_s), float(errors), float(weight))
            for name, (age_s, errors, weight) in state.items()
        }
        if not all(math.isfinite(m.at_s + m.errors) and m.weight >= 0 for m in means.values()):
            raise ValueError("a correction is out of range")
        self._fleet = means.pop("", self._fleet)
        self._fleet_value = None
        self._engines.update({EngineId(name): mean for name, mean in means.items()})

    def forget(self, engine_id: EngineId) -> None:
        """Drop what is known of an engine that left or restarted."""
        self._engines.pop(engine_id, None)


def _limited(value: float, bound: float) -> float:
    if value > bound:
        return bound
    return -bound if value < -bound else value


def clipped(log_residual: float) -> float:
    """The correction as applied to a prediction."""
    if -MAX_CORRECTION <= log_residual <= MAX_CORRECTION:
        return log_residual
    return 0.0 if math.isnan(log_residual) else math.copysign(MAX_CORRECTION, log_residual)


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
