"""When a cached prefix decides, and what does otherwise."""

from random import Random

import pytest

from lodestar_router.policy.kvaware import KvAware
from tests.factories import candidate, request


@pytest.mark.parametrize(
    ("prompt_tokens", "cached_tokens", "chosen"),
    [
        pytest.param(10_000, 8000, "cached", id="2000-left-are-few-enough"),
        pytest.param(10_000, 7984, "idle", id="more-are-not"),
        pytest.param(1900, 16, "cached", id="a-short-prompt-follows-any-match"),
        pytest.param(1900, 0, "idle", id="but-not-none"),
    ],
)
def test_match_decides_if_it_leaves_few_tokens(
    prompt_tokens: int, cached_tokens: int, chosen: str
) -> None:
    candidates = [
        candidate("cached", cached_prefix_tokens=cached_tokens, inflight_requests=3),
        candidate("idle"),
    ]

    decision = KvAware(Random(0)).choose(request(prompt_tokens=prompt_tokens), candidates)

    assert decision.engine_id == chosen


def test_threshold_can_be_given() -> None:
    candidates = [candidate("a", cached_prefix_tokens=512, inflight_requests=3), candidate("b")]
    asked = request(prompt_tokens=1000)

    assert KvAware(Random(0), threshold_tokens=500).choose(asked, candidates).engine_id == "a"
    assert KvAware(Random(0), threshold_tokens=400).choose(asked, candidates).engine_id == "b"


def test_longest_match_wins() -> None:
    candidates = [candidate(name, cached_prefix_tokens=16 * n) for n, name in enumerate("abc")]

    assert KvAware(Random(0)).choose(request(), candidates).engine_id == "c"


def test_session_decides_where_nothing_is_cached() -> None:
    policy = KvAware(Random(0))
    candidates = [candidate(name, inflight_requests=n) for n, name in enumerate("abcd")]

    engines = {policy.choose(request(session_id=f"s{n}"), candidates).engine_id for n in range(40)}
    again = {policy.choose(request(session_id="s1"), candidates).engine_id for _ in range(5)}

    assert len(engines) == 4
    assert len(again) == 1
