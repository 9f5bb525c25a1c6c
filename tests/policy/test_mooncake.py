"""Mooncake's estimate by hand."""

from random import Random

import pytest

from lodestar_router.core.types import Candidate
from lodestar_router.policy.mooncake import Mooncake
from tests.factories import candidate, request


def prefill_s(gpu: str, new_tokens: int, cached_tokens: int) -> float:
    """Quadratic in the tokens, so that requests and not their sum must be asked for."""
    slowness = {"A30": 1.0, "V100": 3.0}[gpu]
    return slowness * (1.0 + new_tokens * (new_tokens + cached_tokens) * 1e-6)


@pytest.mark.parametrize(
    ("engine", "cost_s"),
    [
        pytest.param(candidate(gpu="A30"), 2.0, id="idle-and-cold"),
        pytest.param(candidate(gpu="V100"), 6.0, id="a-slower-kind"),
        pytest.param(candidate(gpu="A30", cached_prefix_tokens=600), 1.4, id="cached-prefix"),
        pytest.param(
            candidate(gpu="A30", inflight_prefill_requests=2, inflight_prefill_tokens=4000),
            2 * 5.0 + 2.0,
            id="queued-prefills-one-by-one",
        ),
        pytest.param(
            candidate(gpu="A30", inflight_decode_tokens=90_000, inflight_requests=40),
            2.0,
            id="decodes-cost-nothing",
        ),
        pytest.param(
            candidate(gpu="A30", cached_prefix_tokens=1000), 1.001, id="the-last-token-is-computed"
        ),
    ],
)
def test_cost_is_queued_and_own_prefill_time(engine: Candidate, cost_s: float) -> None:
    policy = Mooncake(Random(0), prefill_s=prefill_s)

    decision = policy.choose(request(prompt_tokens=1000), [engine])

    assert list(decision.costs) == pytest.approx([cost_s])


def test_without_measurements_all_kinds_are_equally_fast() -> None:
    fleet = [
        candidate("a", gpu="A30"),
        candidate("b", gpu="H100", cached_prefix_tokens=500),
        candidate("c", gpu="H100", inflight_prefill_requests=1, inflight_prefill_tokens=100),
    ]

    decision = Mooncake(Random(0)).choose(request(prompt_tokens=1000), fleet)

    assert list(decision.costs) == pytest.approx([0.23, 0.13, 0.23 + 0.05])
