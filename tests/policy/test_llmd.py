"""llm-d's weighted scorers by hand."""

from random import Random

import pytest

from lodestar_router.core.types import Candidate
from lodestar_router.policy.llmd import Llmd211, Llmd322
from tests.factories import candidate, load, request


def engine(name: str, cached: int, waiting: int, usage: float) -> Candidate:
    return candidate(
        name,
        cached_prefix_tokens=cached,
        load=load(num_waiting_reqs=waiting, kv_cache_usage_ratio=usage),
    )


# Scores of 3, 2, 2: a 0 + 2 + 1.8 = 3.8; b 2.4 + 1 + 0.4 = 3.8; c 1.5 + 0 + 1 = 2.5.
FLEET = [engine("a", 0, 0, 0.1), engine("b", 800, 3, 0.8), engine("c", 500, 6, 0.5)]


@pytest.mark.parametrize(
    ("policy", "costs", "chosen"),
    [
        pytest.param(Llmd322(Random(0)), [3.2, 3.2, 4.5], {"a", "b"}, id="3-2-2"),
        # a 0 + 1 + 0.9, b 1.6 + 0.5 + 0.2, c 1.0 + 0 + 0.5, of 4
        pytest.param(Llmd211(Random(0)), [2.1, 1.7, 2.5], {"b"}, id="2-1-1"),
    ],
)
def test_costs_are_what_is_missing_to_the_best_score(
    policy: Llmd322 | Llmd211, costs: list[float], chosen: set[str]
) -> None:
    decision = policy.choose(request(prompt_tokens=1000), FLEET)

    assert list(decision.costs) == pytest.approx(costs)
    assert decision.engine_id in chosen


def test_equal_queues_score_full() -> None:
    fleet = [engine("a", 0, 5, 0.0), engine("b", 100, 5, 0.0)]

    decision = Llmd322(Random(0)).choose(request(prompt_tokens=1000), fleet)

    assert list(decision.costs) == pytest.approx([3.0, 2.7])


def test_bursts_between_reports_do_not_show() -> None:
    """As published: in-flight counts play no part once an engine reports."""
    fleet = [
        candidate("a", load=load(), inflight_requests=50, inflight_prefill_requests=50),
        candidate("b", load=load(num_waiting_reqs=1)),
    ]

    assert Llmd322(Random(0)).choose(request(), fleet).engine_id == "a"


def test_an_engine_that_never_reported_goes_by_own_counts() -> None:
    silent = candidate(
        "a",
        inflight_prefill_requests=2,
        inflight_prefill_tokens=600,
        inflight_decode_tokens=1000,
        kv_blocks=200,
        block_size_tokens=16,
    )
    fleet = [silent, engine("b", 0, 4, 0.0), engine("c", 0, 0, 0.0)]

    decision = Llmd322(Random(0)).choose(request(prompt_tokens=1000), fleet)

    # Queue of a: (4 - 2) / 4. Usage of a: 1,600 of 3,200 tokens.
    assert list(decision.costs) == pytest.approx([3 + 1 + 1, 3 + 2, 3])
