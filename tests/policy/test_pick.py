"""Near-ties, exploration among them, and the probability that is written down."""

from collections import Counter
from random import Random

import pytest

from lodestar_router.policy.pick import NO_EXPLORATION, Exploration, Pick, pick
from tests.factories import candidate, request


def picks(
    costs: list[float], exploration: Exploration, times: int, cached: tuple[int, ...] = ()
) -> list[Pick]:
    held = [*cached, *[0] * (len(costs) - len(cached))]
    candidates = [candidate(str(i), cached_prefix_tokens=c) for i, c in enumerate(held)]
    rng = Random(3)
    return [pick(request(), candidates, costs, exploration, rng) for _ in range(times)]


@pytest.mark.parametrize(
    ("costs", "chosen"),
    [
        pytest.param([1.0, 1.5], {0}, id="the-lowest"),
        pytest.param([1.0, 1.015, 1.03], {0, 1}, id="two-percent-is-a-tie"),
        pytest.param([0.0001, 0.001, 0.002], {0, 1}, id="a-millisecond-is-a-tie"),
    ],
)
def test_without_exploration_the_lowest_and_its_near_ties(
    costs: list[float], chosen: set[int]
) -> None:
    made = picks(costs, NO_EXPLORATION, 50)

    assert {p.chosen for p in made} == chosen
    assert {(p.tied, p.propensity, p.explored) for p in made} == {
        (len(chosen), 1 / len(chosen), False)
    }


def test_of_near_ties_the_one_with_the_least_to_compute() -> None:
    made = picks([1.0, 1.01, 1.0], NO_EXPLORATION, 20, cached=(0, 400, 0))

    assert {(p.chosen, p.propensity) for p in made} == {(1, 1.0)}


@pytest.mark.parametrize(
    ("costs", "max_extra_s", "explorable"),
    [
        pytest.param([1.0, 1.4, 1.5], 0.9, {0, 1}, id="a-share-of-the-lowest"),
        pytest.param([1.0, 1.04, 1.15], 0.05, {0, 1}, id="at-most-so-many-seconds"),
        pytest.param([1.0, 1.5], 0.5, {0}, id="nothing-near"),
        pytest.param([1.0, 1.01], 0.0, {0, 1}, id="near-ties-always"),
    ],
)
def test_exploration_stays_within_its_bounds(
    costs: list[float], max_extra_s: float, explorable: set[int]
) -> None:
    made = picks(costs, Exploration(share=1.0, max_extra_s=max_extra_s), 60)

    assert {p.chosen for p in made} == explorable


def test_the_recorded_propensity_is_the_frequency() -> None:
    costs = [1.0, 1.01, 1.1, 1.18, 2.0]
    made = picks(costs, Exploration(share=0.3, max_extra_s=1.0), 20_000)

    counts = Counter(p.chosen for p in made)
    recorded = {p.chosen: p.propensity for p in made}
    assert set(recorded) == {0, 1, 2, 3}
    assert sum(recorded.values()) == pytest.approx(1.0)
    for index, propensity in recorded.items():
        assert counts[index] / len(made) == pytest.approx(propensity, abs=0.01)
    assert {p.chosen for p in made if p.explored} == {2, 3}


def test_one_candidate_is_never_explored() -> None:
    assert picks([1.0], Exploration(share=1.0), 3) == [Pick(chosen=0, tied=1, propensity=1.0)] * 3
