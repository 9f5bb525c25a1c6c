from random import Random

import numpy as np
import pytest

from lodestar_router.core.types import replace
from lodestar_router.features.rates import DEFAULT_RATE
from lodestar_router.features.schema import FEATURES, NUM_FEATURES, SCHEMA_VERSION
from lodestar_router.features.serving import Layer
from lodestar_router.policy.lodestar import LodestarPolicy
from tests.factories import candidate, load, request
from tests.features.models import RATES, model


def dislikes(name: str) -> tuple[Layer, ...]:
    """A net of one layer that predicts longer where a feature is large."""
    weight = np.zeros((NUM_FEATURES, 1), np.float32)
    weight[[feature.name for feature in FEATURES].index(name)] = 0.5
    return ((weight, np.zeros(1, np.float32)),)


@pytest.mark.parametrize(
    ("pending_b", "cached_b", "chosen", "reason"),
    [
        pytest.param(0, 512, 1, "both", id="cached-prefix-wins-when-pending-is-equal"),
        pytest.param(300, 512, 1, "affinity", id="cached-prefix-outweighs-a-little-pending"),
        pytest.param(4096, 512, 0, "load", id="pending-work-outweighs-cached-prefix"),
    ],
)
def test_the_base_weighs_pending_against_cached_tokens(
    pending_b: int, cached_b: int, chosen: int, reason: str
) -> None:
    idle = candidate("a")
    other = candidate(
        "b",
        cached_prefix_tokens=cached_b,
        inflight_requests=min(pending_b, 1),
        inflight_prefill_tokens=pending_b,
    )

    decision = LodestarPolicy(Random(0)).choose(request(prompt_tokens=1024), [idle, other])

    assert (decision.chosen, decision.reason, decision.propensity) == (chosen, reason, 1.0)
    assert decision.model_version is None


def test_without_a_model_the_prediction_is_the_base_under_default_rates() -> None:
    decision = LodestarPolicy(Random(0)).choose(
        request(prompt_tokens=1000),
        [candidate("a", cached_prefix_tokens=400, inflight_prefill_tokens=5000)],
    )

    assert decision.predicted_ttft_s == pytest.approx([DEFAULT_RATE.base_s(5600)], rel=1e-5)
    assert decision.base_s == pytest.approx(decision.costs)


def test_the_faster_kind_takes_more_pending_work() -> None:
    fast = candidate("a", gpu="A30", inflight_prefill_tokens=2500)
    slow = candidate("b", gpu="V100")

    policy = LodestarPolicy(Random(0), model(trusted=False))

    assert policy.choose(request(), [fast, slow]).chosen == 0


def test_a_trusted_model_steers() -> None:
    waiting = candidate("a", load=load(num_waiting_reqs=50), cached_prefix_tokens=100)
    free = candidate("b", load=load())
    policy = LodestarPolicy(Random(0))
    assert policy.choose(request(), [waiting, free]).chosen == 0

    policy.swap(model(version=4, weights=dislikes("num_waiting_reqs")))
    decision = policy.choose(request(), [waiting, free])

    assert decision.chosen == 1
    assert (decision.model_version, decision.schema_version) == (4, SCHEMA_VERSION)
    assert decision.base_s is not None
    assert decision.predicted_ttft_s is not None
    assert decision.predicted_ttft_s[0] > 2 * decision.base_s[0]


def test_a_model_that_is_not_trusted_gives_rates_only() -> None:
    waiting = candidate("a", load=load(num_waiting_reqs=50))
    distrusted = model(trusted=False, weights=dislikes("num_waiting_reqs"))

    decision = LodestarPolicy(Random(0), distrusted).choose(request(), [waiting])

    assert decision.predicted_ttft_s == pytest.approx([RATES.pooled.base_s(1000)], rel=1e-5)
    assert decision.model_version == 1


def test_an_engine_slower_than_predicted_is_corrected_outside_the_net() -> None:
    slow, other = candidate("a", log_residual=0.7), candidate("b")
    decision = LodestarPolicy(Random(0)).choose(request(), [slow, other])

    assert decision.chosen == 1
    assert decision.base_s is not None
    assert decision.base_s[0] == decision.base_s[1], "the base stays physical"
    assert decision.costs[0] == pytest.approx(decision.costs[1] * np.exp(0.7), rel=1e-5)


def test_equal_engines_are_drawn_evenly() -> None:
    policy = LodestarPolicy(Random(5))
    engines = [candidate(name) for name in "abcd"]

    # Looked at only: what is sent has a price, and the next choice would be even for that.
    decisions = [policy.consider(request(), engines) for _ in range(400)]

    counts = np.bincount([decision.chosen for decision in decisions], minlength=4)
    assert counts.min() > 70
    assert {(d.reason, d.propensity) for d in decisions} == {("tie", 0.25)}


def test_a_near_tie_goes_to_the_engine_with_less_to_compute() -> None:
    holder = candidate("a", cached_prefix_tokens=160, inflight_prefill_tokens=162)
    others = [candidate(name) for name in "bcd"]

    decisions = [
        LodestarPolicy(Random(seed)).choose(request(), [*others, holder]) for seed in range(20)
    ]

    assert {(d.chosen, d.propensity) for d in decisions} == {(3, 1.0)}


def test_the_decision_keeps_what_was_scored_of_every_candidate() -> None:
    engines = [candidate("a"), candidate("b", inflight_prefill_tokens=900), candidate("c")]
    decision = LodestarPolicy(Random(0), model()).choose(request(), engines)

    assert decision.features is not None
    assert decision.features.shape == (3, NUM_FEATURES)
    assert len(decision.costs) == 3
    assert decision.costs[decision.chosen] <= min(decision.costs) * 1.03


def test_absurd_load_is_never_attractive() -> None:
    """The residual is worth a factor of 12 at most; a hundredfold queue is not."""
    flattered = candidate("a", inflight_prefill_tokens=10_000_000)
    engines = [flattered, replace(candidate("b"), cached_prefix_tokens=0)]

    for seed in range(5):
        wild = model(weights=tuple((w * 1e3, b) for w, b in model().layers))
        assert LodestarPolicy(Random(seed), wild).choose(request(), engines).chosen == 1
