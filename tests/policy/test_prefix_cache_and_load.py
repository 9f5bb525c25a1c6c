"""AIBrix's prefix-cache rule, guard by guard."""

from random import Random

import pytest

from lodestar_router.policy.prefix_cache_and_load import PrefixCacheAndLoad
from tests.factories import candidate, request


@pytest.mark.parametrize(
    ("cached", "inflight", "chosen"),
    [
        pytest.param([0, 0, 0], [2, 1, 3], {"b"}, id="no-match-least-request"),
        pytest.param([0, 0, 0], [1, 1, 3], {"a", "b"}, id="no-match-ties-share"),
        pytest.param([200, 800, 0], [0, 2, 2], {"b"}, id="the-best-match"),
        pytest.param([800, 800, 0], [3, 2, 4], {"b"}, id="equal-matches-by-load"),
        pytest.param([800, 804, 0], [2, 3, 4], {"a"}, id="matches-equal-in-whole-percent"),
        pytest.param([3, 0, 0], [1, 0, 1], {"a"}, id="a-match-below-one-percent-is-a-match"),
        # mean 8/3, population deviation 3.09: 7 passes the ceiling of 5.76
        pytest.param([200, 800, 0], [1, 7, 0], {"a"}, id="an-overloaded-match-is-passed-over"),
        pytest.param([0, 800, 0], [1, 7, 0], {"c"}, id="none-eligible-least-request"),
        # ceilings of mean + deviation: 12.1 and 12.2, so 11 passes only the second guard
        pytest.param([0, 0, 500], [3, 11, 11], {"c"}, id="a-gap-of-eight-is-balanced"),
        pytest.param([0, 0, 500], [2, 11, 11], {"a"}, id="a-gap-of-nine-is-not"),
        pytest.param([0, 300, 900], [2, 2, 11], {"b"}, id="imbalanced-match-among-the-idlest"),
    ],
)
def test_choice(cached: list[int], inflight: list[int], chosen: set[str]) -> None:
    policy = PrefixCacheAndLoad(Random(0))
    candidates = [
        candidate(name, cached_prefix_tokens=tokens, inflight_requests=requests)
        for name, tokens, requests in zip("abc", cached, inflight, strict=True)
    ]

    decisions = [policy.choose(request(prompt_tokens=1000), candidates) for _ in range(40)]

    assert {decision.engine_id for decision in decisions} == chosen


def test_costs_are_places_in_the_order_of_preference() -> None:
    candidates = [
        candidate("a", inflight_requests=1),
        candidate("b", inflight_requests=2),
        candidate("c", inflight_requests=2, cached_prefix_tokens=500),
        candidate("d", inflight_requests=1),
    ]

    decision = PrefixCacheAndLoad(Random(0)).choose(request(), candidates)

    assert list(decision.costs) == [1.0, 2.0, 0.0, 1.0]
    assert decision.reason == "affinity"
