"""production-stack's prefixaware: chunks, ties, the minimum match."""

from random import Random

import pytest

from lodestar_router.policy.prefixaware import PrefixAware
from tests.factories import candidate, request


@pytest.mark.parametrize(
    ("cached", "costs", "chosen"),
    [
        # 1,000 tokens are 32 chunks of 32 tokens, the last one partial.
        pytest.param([0, 0, 0], [32, 32, 32], {"a", "b", "c"}, id="no-match-anyone"),
        pytest.param([31, 0, 0], [32, 32, 32], {"a", "b", "c"}, id="less-than-a-chunk-is-none"),
        pytest.param([32, 0, 0], [31, 32, 32], {"a"}, id="one-chunk"),
        pytest.param([64, 95, 32], [30, 30, 31], {"a", "b"}, id="equal-in-whole-chunks"),
        pytest.param([64, 96, 32], [30, 29, 31], {"b"}, id="the-longest"),
    ],
)
def test_the_longest_match_in_chunks_wins_whatever_the_load(
    cached: list[int], costs: list[int], chosen: set[str]
) -> None:
    policy = PrefixAware(Random(0))
    candidates = [
        candidate(name, cached_prefix_tokens=tokens, inflight_requests=requests)
        for name, tokens, requests in zip("abc", cached, [90, 50, 0], strict=True)
    ]

    decisions = [policy.choose(request(prompt_tokens=1000), candidates) for _ in range(60)]

    assert list(decisions[0].costs) == costs
    assert {decision.engine_id for decision in decisions} == chosen
    assert {decision.propensity for decision in decisions} == {1 / len(chosen)}


@pytest.mark.parametrize(
    ("cached_b", "chosen"),
    [
        pytest.param(63, "a", id="below-two-chunks-by-load"),
        pytest.param(64, "b", id="two-chunks-are-enough"),
    ],
)
def test_a_match_below_the_minimum_goes_by_load(cached_b: int, chosen: str) -> None:
    candidates = [
        candidate("a", inflight_requests=1),
        candidate("b", cached_prefix_tokens=cached_b, inflight_requests=2),
    ]

    policy = PrefixAware(Random(0), min_match_chars=256)

    assert policy.choose(request(prompt_tokens=1000), candidates).engine_id == chosen
