"""SMG's least_load by hand, with and without its signals."""

from random import Random

import pytest

from lodestar_router.core.types import Candidate
from lodestar_router.policy.smg_least_load import SmgLeastLoad
from tests.factories import candidate, load, request


@pytest.mark.parametrize(
    ("engine", "cost_s"),
    [
        pytest.param(candidate(load=load()), 0.0, id="idle"),
        pytest.param(
            candidate(load=load(), inflight_prefill_tokens=3000), 1.5, id="drain-time-of-own-tokens"
        ),
        pytest.param(
            candidate(load=load(kv_cache_usage_ratio=0.8)), 0.15 * 4, id="price-on-kv-usage"
        ),
        pytest.param(
            candidate(load=load(kv_cache_usage_ratio=1.0)), 0.15 * 999, id="a-full-cache-is-finite"
        ),
        pytest.param(
            candidate(
                load=load(num_waiting_reqs=5),
                inflight_prefill_requests=3,
                inflight_prefill_tokens=1000,
            ),
            (1000 + 2 * 1024) / 2000,
            id="waiting-requests-of-others",
        ),
        pytest.param(
            candidate(load=load(), inflight_prefill_tokens=3000, gpu="A100"),
            0.5,
            id="throughput-of-its-kind",
        ),
    ],
)
def test_cost_is_the_expected_wait(engine: Candidate, cost_s: float) -> None:
    policy = SmgLeastLoad(Random(0), throughput_tokens_per_s={"A100": 6000.0})

    decision = policy.choose(request(now_s=30.0), [engine])

    assert list(decision.costs) == pytest.approx([cost_s])


def test_an_engine_without_a_fresh_report_is_estimated_from_its_peers() -> None:
    policy = SmgLeastLoad(Random(0), throughput_tokens_per_s={"A100": 6000.0})
    fleet = [
        candidate("a", load=load(observed_at_s=80.0), gpu="A100", inflight_prefill_tokens=600),
        candidate("b", load=load(observed_at_s=80.0)),
        candidate("c", load=load(observed_at_s=69.9), inflight_requests=2),
        candidate("d", inflight_requests=1),
    ]

    decision = policy.choose(request(now_s=100.0), fleet)

    # The mean of 6,000 and 2,000 stands in for c, whose report is 30.1 s old, and d.
    assert list(decision.costs) == pytest.approx([0.1, 0.0, 2048 / 4000, 1024 / 4000])


def test_a_fleet_that_never_reports_goes_by_requests() -> None:
    fleet = [
        candidate("a", inflight_requests=3),
        candidate("b", inflight_requests=2, inflight_prefill_tokens=90_000),
    ]

    decision = SmgLeastLoad(Random(0)).choose(request(), fleet)

    assert (list(decision.costs), decision.engine_id) == ([3.0, 2.0], "b")


def test_what_is_cached_does_not_count() -> None:
    fleet = [
        candidate("a", load=load(), inflight_prefill_tokens=1),
        candidate("b", load=load(), inflight_prefill_tokens=2, cached_prefix_tokens=900),
    ]

    assert SmgLeastLoad(Random(0)).choose(request(), fleet).engine_id == "a"
