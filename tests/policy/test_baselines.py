"""Random, round robin and least request."""

from collections import Counter
from random import Random

import pytest

from lodestar_router.policy import baselines
from lodestar_router.policy.baselines import LeastRequest, RandomChoice, RoundRobin
from tests.factories import candidate, request


def turns(policy: RoundRobin, engines: str, *, model: str = "m", count: int = 1) -> str:
    """The engines chosen in `count` turns among `engines`, one letter each."""
    candidates = [candidate(name) for name in engines]
    asked = request(model=model)
    return "".join(policy.choose(asked, candidates).engine_id for _ in range(count))


def test_random_is_uniform_and_says_so() -> None:
    policy = RandomChoice(Random(0))
    candidates = [candidate(name, inflight_requests=9) for name in "abcd"]

    decisions = [policy.choose(request(), candidates) for _ in range(4000)]

    shares = Counter(decision.engine_id for decision in decisions)
    assert all(900 < share < 1100 for share in shares.values())
    assert len(shares) == 4
    assert {decision.propensity for decision in decisions} == {0.25}


def test_round_robin_rotates_in_order_of_ids() -> None:
    policy = RoundRobin(Random(0))

    assert turns(policy, "cab", count=7) == "abcabca"


def test_round_robin_costs_are_places_in_line() -> None:
    policy = RoundRobin(Random(0))
    turns(policy, "abc")

    decision = policy.choose(request(), [candidate(name) for name in "cba"])

    assert (decision.engine_id, list(decision.costs)) == ("b", [1.0, 0.0, 2.0])


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param("abcd", "bcd", "bcdbcd", id="the-last-served-is-removed"),
        pytest.param("abcd", "acd", "cdacda", id="the-next-is-removed"),
        pytest.param("bcd", "abcd", "acdbac", id="a-newcomer-takes-one-turn-and-joins"),
    ],
)
def test_round_robin_favours_no_one_when_the_set_changes(
    before: str, after: str, expected: str
) -> None:
    policy = RoundRobin(Random(0))
    turns(policy, before)

    assert turns(policy, after, count=6) == expected


def test_an_engine_that_returns_does_not_get_all_missed_turns() -> None:
    policy = RoundRobin(Random(0))
    turns(policy, "abc", count=3)
    turns(policy, "bc", count=50)

    assert turns(policy, "abc", count=6) == "abcabc"


@pytest.mark.parametrize(
    "subsets",
    [
        pytest.param(["abcd", "ab"], id="one-model-on-all-some-requests-on-two"),
        pytest.param(["ab", "bc", "ca"], id="each-request-excludes-another"),
        pytest.param(["abcdefgh"] * 7 + ["bcdefgh"], id="now-and-then-without-the-first"),
    ],
)
def test_round_robin_is_fair_across_subsets(subsets: list[str]) -> None:
    policy = RoundRobin(Random(0))

    served = Counter("".join(turns(policy, engines) for _ in range(300) for engines in subsets))

    assert max(served.values()) - min(served.values()) <= 2


def test_models_that_take_turns_do_not_stick_to_engines() -> None:
    policy = RoundRobin(Random(0))

    served = [(model, turns(policy, "ab", model=model)) for _ in range(10) for model in "xy"]

    assert Counter(served) == {("x", "a"): 5, ("x", "b"): 5, ("y", "a"): 5, ("y", "b"): 5}


def test_round_robin_remembers_a_bounded_number_of_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(baselines, "MAX_TURNS", 4)
    policy = RoundRobin(Random(0))

    for generation in range(50):
        turns(policy, "ab", model=f"lora-{generation}", count=2)

    assert len(policy._last_turn) == 4
    assert turns(policy, "ab", model="lora-49", count=3) == "aba"


@pytest.mark.parametrize(
    ("inflight", "chosen", "reason", "propensity"),
    [
        pytest.param([3, 1, 2], {"b"}, "load", 1.0, id="the-fewest"),
        pytest.param([1, 2, 1], {"a", "c"}, "tie", 0.5, id="equals-share"),
    ],
)
def test_least_request_takes_the_fewest_in_flight(
    inflight: list[int], chosen: set[str], reason: str, propensity: float
) -> None:
    policy = LeastRequest(Random(0))
    candidates = [candidate(n, inflight_requests=r) for n, r in zip("abc", inflight, strict=True)]

    decisions = [policy.choose(request(), candidates) for _ in range(50)]

    assert {decision.engine_id for decision in decisions} == chosen
    assert {decision.reason for decision in decisions} == {reason}
    assert {decision.propensity for decision in decisions} == {propensity}
