"""One decision in plain values, for GET /debug/decisions: why did it go there?

engine, reason, goal, arm       what was chosen, and what decided
leg                             prefill or decode, where prefill is disaggregated
candidates                      what was known and predicted of each engine
excluded                        the other engines that serve the model, and why they were none
other                           what the policy that did not steer would have done
ttft_s, held_s, tpot_s, ...     what became of it; held_s is part of ttft_s
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lodestar_router.core.types import Decision, Outcome, RoutedRequest
from lodestar_router.features.residual_tracker import clipped


def explain(
    request: RoutedRequest, decision: Decision, outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    """Why this engine: every candidate with what was known and predicted of it."""
    last = outcomes[-1] if outcomes else None
    other = decision.other
    return {
        "request_id": request.request_id,
        "model": request.model,
        "leg": None if request.leg is None else request.leg.value,
        "policy": decision.policy,
        "engine": decision.engine_id,
        "reason": decision.reason,
        "propensity": decision.propensity,
        "goal": None if decision.goal is None else asdict(decision.goal),
        "expected_output_tokens": None
        if decision.forecast is None
        else decision.forecast.output_tokens,
        "arm": None if decision.arm is None else decision.arm.value,
        "model_version": decision.model_version,
        "model_trusted": decision.trusted,
        "prompt_tokens": request.prompt_tokens,
        "tokens_known": request.tokens_known,
        "ttft_s": None if last is None else last.ttft_s,
        "held_s": None if last is None else last.held_s,
        "output_tokens": None if last is None else last.output_tokens,
        "tpot_s": None if last is None else last.tpot_s,
        "ending": None if last is None or last.ending is None else last.ending.value,
        "candidates": [_candidate(request, decision, index) for index in _indices(decision)],
        "excluded": dict(decision.excluded or {}),
        "other": None
        if other is None
        else {
            "policy": other.policy,
            "engine": other.engine_id,
            "reason": other.reason,
            "propensity": other.propensity,
            "costs": {
                candidate.engine.engine_id: float(cost)
                for candidate, cost in zip(other.candidates, other.costs, strict=True)
            },
        },
    }


def _indices(decision: Decision) -> range:
    return range(len(decision.candidates))


def _candidate(request: RoutedRequest, decision: Decision, index: int) -> dict[str, Any]:
    candidate = decision.candidates[index]
    engine, forecast = candidate.engine, decision.forecast
    return {
        "engine": engine.engine_id,
        "cost": float(decision.costs[index]),
        "predicted_ttft_s": _at(decision.predicted_ttft_s, index),
        "price_s": _at(decision.prices_s, index),
        "predicted_tpot_s": None if forecast is None else forecast.tpot_s[index],
        "others_answers_s": None if forecast is None else forecast.others_s[index],
        "base_s": _at(decision.base_s, index),
        "residual": _at(decision.residuals, index),
        "correction": clipped(engine.log_residual),
        "cached_prefix_tokens": candidate.cached_prefix_tokens,
        "prefix_view": engine.prefix_view.value,
        "circuit": engine.circuit.value,
        "inflight_requests": engine.inflight_requests,
        "inflight_prefill_tokens": engine.inflight_prefill_tokens,
        "inflight_computed_tokens": engine.inflight_computed_tokens,
        "load_age_s": engine.load_age_s(request.now_s),
    }


def _at(values: Any, index: int) -> float | None:
    """One of an array or a list, where there is one."""
    return None if values is None else float(values[index])
