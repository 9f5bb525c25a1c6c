"""The router's own policy with other settings, in small cells."""

from math import nan

import pytest

from lodestar_router.core.types import Arm, Decision, Outcome, PrefixViewKind, RoutedRequest
from lodestar_router.features.row import TrainingRow
from lodestar_router.policy.lodestar import LodestarPolicy
from perf.routing.catalog import make_policy
from perf.routing.cells import Delays
from perf.routing.measure import TPOT_SLO_S, TTFT_SLO_S, measured, row
from perf.routing.plan import make_plan
from perf.routing.policies import lodestar_variants
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


def test_without_the_net_the_base_steers_from_first_to_last() -> None:
    _, decisions = decisions_of("lodestar_no_residual")

    assert {decision.arm for decision in decisions} == {Arm.FALLBACK}


def test_without_the_price_nobody_pays() -> None:
    _, decisions = decisions_of("lodestar_no_price")

    assert {price for decision in decisions for price in decision.prices_s or ()} == {0.0}


def test_without_the_gate_every_round_is_published_and_used() -> None:
    gated, _ = decisions_of("lodestar")
    simulation, decisions = decisions_of("lodestar_no_gate")

    assert gated.trainer is not None
    assert simulation.trainer is not None
    assert simulation.trainer.models >= gated.trainer.models
    used = [decision for decision in decisions if decision.model_version]
    assert used
    assert {decision.trusted for decision in used} == {True}


def test_without_bounds_only_first_tokens_are_learned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    offered: dict[str, list[bool]] = {"lodestar": [], "lodestar_no_censored": []}
    crowded = cell(requests_per_s=40.0)
    for policy, censored in offered.items():
        chosen = make_policy(policy, 1)
        simulation = Simulation(crowded, make_plan(crowded, None, 1), chosen, 1)
        assert simulation.trainer is not None

        def keep(row: TrainingRow, to: list[bool] = censored) -> None:
            to.append(row.censored)

        monkeypatch.setattr(simulation.trainer, "offer", keep)
        simulation.run()

    assert any(offered["lodestar"])
    assert len(offered["lodestar_no_censored"]) > 100
    assert not any(offered["lodestar_no_censored"])


def test_the_frozen_one_serves_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lodestar_variants, "FROZEN_AT_S", 10.0)
    long = cell(requests_per_s=12.0, duration_s=25.0)

    simulation = run(long, "lodestar_frozen")

    learned = simulation.router.policy
    assert isinstance(learned, LodestarPolicy)
    assert simulation.trainer is not None
    assert learned.model is not None
    assert learned.model.version < simulation.trainer.models


def test_late_reports_and_guesses_are_what_the_router_sees() -> None:
    ages: dict[str, float] = {}
    kinds: dict[str, set[PrefixViewKind]] = {}
    for policy in ("lodestar", "lodestar_stale", "lodestar_tier0"):
        _, decisions = decisions_of(policy)
        engines = [c.engine for d in decisions[50:] for c in d.candidates]
        kinds[policy] = {engine.prefix_view for engine in engines}
        loads = [engine.load for engine in engines if engine.load is not None]
        ages[policy] = len({load.observed_at_s for load in loads})

    assert kinds["lodestar"] == kinds["lodestar_stale"] == {PrefixViewKind.EXACT}
    assert kinds["lodestar_tier0"] == {PrefixViewKind.APPROXIMATE}
    assert ages["lodestar_tier0"] < ages["lodestar"]


def test_lost_batches_make_the_views_partial_and_guesses_worse() -> None:
    lossy = cell(requests_per_s=12.0, delays=Delays(kv_event_loss=0.2))
    seen: list[Decision] = []
    simulation = Simulation(lossy, make_plan(lossy, None, 1), make_policy("lodestar", 1), 1)
    simulation.on_label(lambda _, decision, outcome: seen.append(decision))
    simulation.run()

    assert {c.engine.prefix_view for d in seen[-20:] for c in d.candidates} == {
        PrefixViewKind.PARTIAL
    }
    told = row(lossy, simulation)
    assert told["expected_hit_ratio"] != told["hit_ratio"]
    assert decisions_of("lodestar_lossy")[1]
