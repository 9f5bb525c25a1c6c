"""The router's own policy with other settings, in small cells."""

from math import nan

import pytest

from lodestar_router.core.types import Arm, Decision, Outcome, RoutedRequest
from perf.routing.catalog import make_policy
from perf.routing.measure import TPOT_SLO_S, TTFT_SLO_S, measured, row
from perf.routing.plan import make_plan
from perf.routing.simulation import Simulation
from tests.perf.small import cell, run

BUSY = cell(requests_per_s=12.0)


def decisions_of(policy: str) -> tuple[Simulation, list[Decision]]:
    simulation = Simulation(BUSY, make_plan(BUSY, None, 1), make_policy(policy, 1), 1)
    decisions: list[Decision] = []

    def keep(_: RoutedRequest, decision: Decision, outcome: Outcome) -> None:
        if outcome.ending is not None:
            decisions.append(decision)

    simulation.on_label(keep)
    simulation.run()
    return simulation, decisions


@pytest.mark.parametrize("objective", ["tail", "e2e", "tpot", "goodput"])
def test_every_choice_is_made_for_the_objective(objective: str) -> None:
    _, decisions = decisions_of(f"lodestar_{objective}")

    goals = {decision.goal for decision in decisions}
    assert len(decisions) > 100
    assert [goal.objective.removeprefix("ttft_") for goal in goals if goal] == [objective]


def test_answers_teach_how_fast_they_come() -> None:
    _, decisions = decisions_of("lodestar_e2e")

    first, last = decisions[0].forecast, decisions[-1].forecast
    assert first is not None
    assert last is not None
    assert last.output_tokens == pytest.approx(8, abs=1)
    assert last.tpot_spread != first.tpot_spread


def test_in_the_shadow_a_model_is_learned_and_steers_nothing() -> None:
    simulation, decisions = decisions_of("lodestar_base")

    assert simulation.trainer is not None
    assert simulation.trainer.models > 0
    assert {decision.arm for decision in decisions} == {Arm.FALLBACK}
    assert {decision.policy for decision in decisions} == {"lodestar_base"}
    assert any(decision.other and decision.other.model_version for decision in decisions)


def test_exploration_is_rare_and_says_so() -> None:
    _, decisions = decisions_of("lodestar_explore")

    explored = [decision for decision in decisions if decision.reason == "exploration"]
    assert 0 < len(explored) < 0.05 * len(decisions)
    assert all(decision.propensity <= 0.05 / 2 for decision in explored)


def test_goodput_counts_those_within_both_limits() -> None:
    quiet = cell(requests_per_s=4.0)
    simulation = run(quiet, "lodestar")
    flights = measured(quiet, simulation.flights)
    assert row(quiet, simulation)["goodput_ratio"] == 1.0

    flights[0].first_token_at_s = flights[0].arrived_at_s + 2 * TTFT_SLO_S
    flights[1].ended_at_s = flights[1].first_token_at_s + 2 * TPOT_SLO_S * 10
    flights[2].ended_at_s = nan

    kept = row(quiet, simulation)["goodput_ratio"]
    assert kept == pytest.approx(1 - 3 / len(flights), abs=1e-6)
