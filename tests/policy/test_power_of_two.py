"""Two choices: who wins a pair, how often, and what is said of it."""

from collections import Counter
from random import Random

import pytest

from lodestar_router.policy.power_of_two import PowerOfTwo
from tests.factories import candidate, request


@pytest.mark.parametrize(
    ("inflight", "propensities"),
    [
        # Six ordered pairs of three engines: a wins four, b two, c none.
        pytest.param([0, 1, 2], {"a": 4 / 6, "b": 2 / 6}, id="all-differ"),
        pytest.param([1, 1, 2], {"a": 3 / 6, "b": 3 / 6}, id="a-tie-is-shared"),
        pytest.param([5, 5, 5], {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, id="all-equal"),
        pytest.param([7, 3], {"b": 1.0}, id="two-engines-are-always-compared"),
        pytest.param([7], {"a": 1.0}, id="a-single-one"),
    ],
)
def test_the_less_busy_of_two_wins_as_often_as_it_says(
    inflight: list[int], propensities: dict[str, float]
) -> None:
    policy = PowerOfTwo(Random(0))
    candidates = [
        candidate(name, inflight_requests=count)
        for name, count in zip("abc", inflight, strict=False)
    ]

    decisions = [policy.choose(request(), candidates) for _ in range(3000)]

    said = {str(decision.engine_id): decision.propensity for decision in decisions}
    shares = Counter(str(decision.engine_id) for decision in decisions)
    assert said == pytest.approx(propensities)
    assert {name: share / 3000 for name, share in shares.items()} == pytest.approx(
        propensities, abs=0.03
    )


def test_costs_are_requests_of_all_candidates_and_ties_are_named() -> None:
    policy = PowerOfTwo(Random(0))

    tied = policy.choose(request(), [candidate(name, inflight_requests=4) for name in "abc"])
    clear = policy.choose(request(), [candidate("a", inflight_requests=4), candidate("b")])

    assert (list(tied.costs), tied.reason) == ([4.0, 4.0, 4.0], "tie")
    assert (list(clear.costs), clear.reason) == ([4.0, 0.0], "load")


def test_load_is_spread_far_better_than_by_chance() -> None:
    policy = PowerOfTwo(Random(0))
    sent = [0] * 16

    for _ in range(1600):
        candidates = [candidate(f"e{i:02}", inflight_requests=n) for i, n in enumerate(sent)]
        sent[policy.choose(request(), candidates).chosen] += 1

    # By chance the most and the fewest of 16 differ by about 35 here.
    assert max(sent) - min(sent) <= 6
