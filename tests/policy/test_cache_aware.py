"""vllm-router's cache_aware and SGLang's, rule by rule."""

from random import Random

import pytest

from lodestar_router.policy import cache_aware
from lodestar_router.policy.cache_aware import CacheAware, CacheAwareSglang
from tests.factories import candidate, request


@pytest.mark.parametrize(
    ("cached", "inflight", "costs", "chosen"),
    [
        pytest.param([0, 900], [0, 64], [1000, 100], "b", id="a-gap-of-64-is-balanced"),
        pytest.param([0, 900], [0, 65], [0, 65], "a", id="a-gap-of-65-is-not"),
        pytest.param([0, 900], [130, 195], [1000, 100], "b", id="no-more-than-half-again-as-many"),
        pytest.param([0, 900], [130, 196], [130, 196], "a", id="more-than-half-again-as-many"),
        pytest.param([0, 300], [0, 1], [0, 1], "a", id="a-match-of-0.3-is-not-above-it"),
        pytest.param([0, 301], [0, 1], [1000, 699], "b", id="a-match-above-0.3"),
        pytest.param([500, 301], [9, 1], [500, 699], "a", id="the-longest-match-whatever-its-load"),
        pytest.param([0, 0], [3, 2], [3, 2], "b", id="no-match-fewest-requests"),
    ],
)
def test_rule_and_costs(
    cached: list[int], inflight: list[int], costs: list[int], chosen: str
) -> None:
    candidates = [
        candidate(name, cached_prefix_tokens=tokens, inflight_requests=requests)
        for name, tokens, requests in zip("ab", cached, inflight, strict=True)
    ]

    decision = CacheAware(Random(0)).choose(request(prompt_tokens=1000), candidates)

    assert list(decision.costs) == costs
    assert decision.engine_id == chosen


def test_other_thresholds() -> None:
    policy = CacheAware(
        Random(0), match_threshold_ratio=0.5, balance_abs_requests=32, balance_rel=1.1
    )
    below = [candidate("a"), candidate("b", cached_prefix_tokens=500, inflight_requests=1)]
    imbalanced = [candidate("a"), candidate("b", cached_prefix_tokens=900, inflight_requests=33)]

    assert policy.choose(request(prompt_tokens=1000), below).engine_id == "a"
    assert policy.choose(request(prompt_tokens=1000), imbalanced).engine_id == "a"


def test_sglang_falls_back_to_the_smallest_tree() -> None:
    policy = CacheAwareSglang(Random(0))
    idle_a, idle_b = candidate("a"), candidate("b")
    policy.choose(request(prompt_tokens=1000), [idle_a])
    policy.choose(request(prompt_tokens=700), [idle_b])
    # Of these 1,000 tokens, b's tree holds 600 already.
    policy.choose(request(prompt_tokens=1000), [candidate("b", cached_prefix_tokens=600)])

    decision = policy.choose(request(prompt_tokens=10), [idle_a, idle_b])
    other_model = policy.choose(request(prompt_tokens=10, model="other"), [idle_a, idle_b])

    assert (list(decision.costs), decision.engine_id) == ([1000.0, 1100.0], "a")
    assert list(other_model.costs) == [0.0, 0.0]


def test_sglang_keeps_both_other_rules() -> None:
    policy = CacheAwareSglang(Random(0))
    policy.choose(request(prompt_tokens=5000), [candidate("b")])

    match = policy.choose(
        request(prompt_tokens=1000), [candidate("a"), candidate("b", cached_prefix_tokens=800)]
    )
    imbalanced = policy.choose(
        request(prompt_tokens=1000), [candidate("a", inflight_requests=65), candidate("b")]
    )

    assert (match.engine_id, imbalanced.engine_id) == ("b", "b")


def test_trees_are_cut_back_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_aware, "MAX_TREE_TOKENS", 1500)
    monkeypatch.setattr(cache_aware, "MAX_TREES", 2)
    policy = CacheAwareSglang(Random(0))
    for name in "aab":
        policy.choose(request(prompt_tokens=1000), [candidate(name)])

    before = policy.choose(request(prompt_tokens=1), [candidate(name) for name in "ab"])
    policy.choose(request(prompt_tokens=1), [candidate("c")])
    after = policy.choose(request(prompt_tokens=1), [candidate(name) for name in "abc"])

    assert list(before.costs) == [1500.0, 1000.0]
    assert list(after.costs) == [0.0, 1001.0, 1.0]
