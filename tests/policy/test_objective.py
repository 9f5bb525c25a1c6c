"""Each objective prefers the candidate that is better at what it is about."""

from random import Random

import pytest

from lodestar_router.core.goal import Goal, Objective
from lodestar_router.core.types import DecodeForecast
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.policy.objective import NEED_DECODING, Prospects, objective_costs
from tests.factories import candidate, request


def best(
    goal: Goal,
    *,
    own_s: tuple[float, float],
    prices_s: tuple[float, float] = (0.0, 0.0),
    spread: tuple[float, float] = (0.3, 0.3),
    tpot_s: tuple[float, float] = (0.05, 0.05),
    others_s: tuple[float, float] = (0.0, 0.0),
) -> int:
    """The cheaper one of two candidates."""
    forecast = DecodeForecast(
        output_tokens=100.0, tpot_s=tpot_s, tpot_spread=(0.2, 0.2), others_s=others_s
    )
    needed = forecast if goal.objective in NEED_DECODING else None
    prospects = Prospects(
        ttft_s=own_s, prices_s=prices_s, spread=spread, long_ttft_s=1.0, forecast=needed
    )
    costs = objective_costs(goal, prospects)
    return costs.index(min(costs))


def of(objective: Objective) -> Goal:
    return Goal(objective=objective, ttft_slo_s=1.0, tpot_slo_s=0.1)


@pytest.mark.parametrize("objective", Objective)
def test_all_prefer_the_shorter_ttft_when_nothing_else_differs(objective: Objective) -> None:
    assert best(of(objective), own_s=(0.9, 0.4)) == 1


@pytest.mark.parametrize("objective", Objective)
def test_all_mind_the_delay_of_others(objective: Objective) -> None:
    assert best(of(objective), own_s=(0.5, 0.5), prices_s=(2.0, 0.1)) == 1


@pytest.mark.parametrize(
    ("objective", "chosen"),
    [
        (Objective.TTFT, 0),
        (Objective.TTFT_TAIL, 0),
        (Objective.E2E, 1),
        (Objective.TPOT, 1),
    ],
)
def test_a_faster_decoder_is_worth_a_longer_wait_to_those_who_wait_for_the_end(
    objective: Objective, chosen: int
) -> None:
    assert best(of(objective), own_s=(0.3, 0.9), tpot_s=(0.06, 0.03)) == chosen


@pytest.mark.parametrize("objective", sorted(NEED_DECODING))
def test_lengthening_the_answers_of_others_costs(objective: Objective) -> None:
    assert best(of(objective), own_s=(0.5, 0.5), others_s=(8.0, 1.0)) == 1


@pytest.mark.parametrize("objective", [Objective.TTFT, Objective.TTFT_TAIL])
def test_an_engine_whose_prediction_is_unsure_is_shunned(objective: Objective) -> None:
    assert best(of(objective), own_s=(0.5, 0.6), spread=(0.2, 0.2)) == 0
    assert best(of(objective), own_s=(0.5, 0.6), spread=(0.9, 0.2)) == 1


@pytest.mark.parametrize("objective", [Objective.TTFT, Objective.TTFT_TAIL])
def test_a_short_wait_yields_and_a_long_one_does_not(objective: Objective) -> None:
    """The same 0.15 s for the request against 0.1 s for others."""
    assert best(of(objective), own_s=(0.05, 0.2), prices_s=(0.1, 0.0)) == 1
    assert best(of(objective), own_s=(2.0, 2.15), prices_s=(0.1, 0.0)) == 0


def test_the_tail_pays_more_for_a_long_wait_than_the_mean_does() -> None:
    long_wait = {"own_s": (1.5, 1.2), "prices_s": (0.0, 1.3)}

    assert best(of(Objective.TTFT), **long_wait) == 0
    assert best(of(Objective.TTFT_TAIL), **long_wait) == 1


def test_goodput_gives_up_what_is_lost_and_keeps_what_can_be_kept() -> None:
    """Far past the limit a shorter wait is worth nothing, the delay of others still is."""
    lost = {"own_s": (20.0, 30.0), "prices_s": (0.5, 0.1)}

    assert best(of(Objective.TTFT), **lost) == 0
    assert best(of(Objective.GOODPUT), **lost) == 1
    assert best(of(Objective.GOODPUT), own_s=(0.9, 0.5), prices_s=(0.0, 0.05)) == 1


def test_goodput_keeps_the_limit_of_tpot_too() -> None:
    goal = of(Objective.GOODPUT)

    assert best(goal, own_s=(0.3, 0.5), tpot_s=(0.15, 0.05)) == 1


def test_the_goal_of_the_request_goes_before_that_of_the_policy() -> None:
    fast = candidate("a", inflight_decode_tokens=1_000_000, inflight_requests=60)
    calm = candidate("b", inflight_prefill_tokens=800)
    policy = LodestarPolicy(Random(0), goal=of(Objective.TTFT))

    own = policy.choose(request(prompt_tokens=500), [fast, calm])
    asked = policy.choose(request(prompt_tokens=500, goal=of(Objective.E2E)), [fast, calm])

    assert (own.engine_id, own.goal, own.forecast) == ("a", of(Objective.TTFT), None)
    assert (asked.engine_id, asked.goal, asked.reason) == ("b", of(Objective.E2E), "objective")
    assert asked.forecast is not None
