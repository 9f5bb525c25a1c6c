"""LMETRIC by its formula."""

from random import Random

import pytest

from lodestar_router.core.types import Candidate
from lodestar_router.policy.lmetric import Lmetric
from tests.factories import candidate, request


@pytest.mark.parametrize(
    ("engine", "cost"),
    [
        pytest.param(candidate(), 1000, id="idle-and-cold"),
        pytest.param(candidate(cached_prefix_tokens=600), 400, id="cached-tokens-are-free"),
        pytest.param(
            candidate(inflight_prefill_tokens=500, inflight_requests=3), 6000, id="product"
        ),
        pytest.param(
            candidate(cached_prefix_tokens=999, block_size_tokens=16),
            1000 - 992,
            id="credit-ends-at-the-last-full-block-before-the-last-token",
        ),
        pytest.param(candidate(cached_prefix_tokens=999), 1, id="block-size-unknown"),
        pytest.param(
            candidate(cached_prefix_tokens=1000, block_size_tokens=8, inflight_requests=1),
            2 * 8,
            id="an-over-stated-match-is-not-believed",
        ),
    ],
)
def test_cost_is_prefill_work_times_batch(engine: Candidate, cost: float) -> None:
    decision = Lmetric(Random(0)).choose(request(prompt_tokens=1000), [engine])

    assert list(decision.costs) == [cost]


@pytest.mark.parametrize(
    ("inflight_b", "chosen", "reason"),
    [
        pytest.param(0, "b", "both", id="a-match-among-idle-engines"),
        pytest.param(1, "b", "affinity", id="a-match-worth-one-request"),
        pytest.param(9, "a", "load", id="a-match-not-worth-nine"),
    ],
)
def test_a_match_counts_until_the_engine_is_busy(inflight_b: int, chosen: str, reason: str) -> None:
    candidates = [
        candidate("a"),
        candidate("b", cached_prefix_tokens=800, inflight_requests=inflight_b),
    ]

    decision = Lmetric(Random(0)).choose(request(prompt_tokens=1000), candidates)

    assert (decision.engine_id, decision.reason) == (chosen, reason)
