"""A decision in plain values."""

import json
from random import Random

import pytest

from lodestar_router.core.goal import Goal, Objective
from lodestar_router.core.types import Ending, Outcome
from lodestar_router.explain import explain
from lodestar_router.policy.baselines import LeastRequest
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.policy.staged import StagedPolicy
from tests.factories import candidate, request
from tests.features.models import model

CANDIDATES = [candidate("a", log_residual=0.3), candidate("b", inflight_requests=1)]


def test_the_parts_of_a_cost_add_up() -> None:
    decision = LodestarPolicy(Random(0), model()).choose(request(), CANDIDATES)

    explained = explain(request(), decision, [])

    assert json.loads(json.dumps(explained)) == explained
    assert explained["model_trusted"] is True
    assert explained["arm"] is None
    assert explained["other"] is None
    for shown in explained["candidates"]:
        assert shown["predicted_ttft_s"] + shown["price_s"] == pytest.approx(shown["cost"])
        factor = shown["predicted_ttft_s"] / shown["base_s"]
        assert factor == pytest.approx(2.718281828 ** (shown["residual"] + shown["correction"]))


def test_the_numbers_of_an_objective_and_of_the_answer_are_shown() -> None:
    asked = request(goal=Goal(objective=Objective.E2E), max_output_tokens=11)
    decision = LodestarPolicy(Random(0), model()).choose(asked, CANDIDATES)
    outcome = Outcome(
        request_id="r1",
        engine_id=decision.engine_id,
        ending=Ending.COMPLETED,
        ttft_s=0.5,
        waited_s=1.5,
        output_tokens=11,
    )

    explained = explain(asked, decision, [outcome])

    assert explained["goal"]["objective"] == "e2e"
    assert explained["expected_output_tokens"] == 11
    assert (explained["output_tokens"], explained["tpot_s"]) == (11, pytest.approx(0.1))
    for shown in explained["candidates"]:
        parts = (
            shown["predicted_ttft_s"],
            shown["price_s"],
            11 * shown["predicted_tpot_s"],
            shown["others_answers_s"],
        )
        assert sum(parts) == pytest.approx(shown["cost"])


def test_both_choices_of_a_trial_are_shown() -> None:
    policy = StagedPolicy(LodestarPolicy(Random(0)), LeastRequest(Random(0)).choose, share=0.0)

    explained = explain(request(), policy.choose(request(), CANDIDATES), [])

    assert (explained["arm"], explained["policy"], explained["engine"]) == (
        "fallback",
        "least_request",
        "a",
    )
    assert explained["reason"] == "fallback"
    assert (explained["other"]["policy"], explained["other"]["engine"]) == ("lodestar", "b")
    assert explained["other"]["costs"]["b"] < explained["other"]["costs"]["a"]
    assert [shown["cost"] for shown in explained["candidates"]] == [0.0, 1.0]


def test_a_heuristic_has_no_predictions_to_show() -> None:
    decision = LeastRequest(Random(0)).choose(request(), CANDIDATES)

    (shown, _) = explain(request(), decision, [])["candidates"]

    assert (shown["predicted_ttft_s"], shown["price_s"], shown["residual"]) == (None, None, None)
