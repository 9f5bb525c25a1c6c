"""Shadow and canary: who steers, what is kept of the one that does not."""

from random import Random

import numpy as np
import pytest

from lodestar_router.core.types import Arm, Candidate, Ending, Outcome, replace
from lodestar_router.features.rates import work_tokens
from lodestar_router.features.row import training_row
from lodestar_router.policy.baselines import LeastRequest
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.policy.pick import Exploration
from lodestar_router.policy.staged import StagedPolicy, learned_in, would_move
from tests.factories import candidate, load, request
from tests.features.models import model
from tests.policy.test_lodestar import dislikes


def disagreed_on() -> list[Candidate]:
    """Least request takes b; the predicted TTFT is lower on a."""
    return [
        candidate("a", inflight_requests=5, cached_prefix_tokens=900),
        candidate("b", inflight_prefill_tokens=3000),
    ]


def staged(share: float) -> StagedPolicy:
    return StagedPolicy(
        LodestarPolicy(Random(0), model()), LeastRequest(Random(0)).choose, share=share
    )


def test_in_the_shadow_the_fallback_steers_and_both_choices_are_kept() -> None:
    decision = staged(0.0).choose(request(), disagreed_on())

    assert (decision.engine_id, decision.policy, decision.reason) == (
        "b",
        "least_request",
        "fallback",
    )
    assert decision.costs == [5.0, 0.0]
    assert decision.arm is Arm.FALLBACK
    assert decision.other is not None
    assert (decision.other.engine_id, decision.other.policy) == ("a", "lodestar")


def test_in_the_shadow_the_row_is_the_learned_vector_of_the_engine_that_was_chosen() -> None:
    asked, candidates = request(), disagreed_on()
    decision = staged(0.0).choose(asked, candidates)
    outcome = Outcome(
        request_id="r1", engine_id=decision.engine_id, ending=None, ttft_s=0.5, waited_s=0.5
    )

    row = training_row(decision, outcome, work_tokens(asked, candidates[decision.chosen]))

    alone = LodestarPolicy(Random(0), model()).consider(asked, candidates)
    assert row is not None
    assert alone.features is not None
    assert alone.predicted_ttft_s is not None
    assert (row.features == alone.features[1]).all()
    assert row.predicted_ttft_s == alone.predicted_ttft_s[1]
    assert (row.engine_id, row.work_tokens) == ("b", 4000)
    assert row.model_version == 1


def test_a_canary_steers_its_share_and_the_same_requests_again() -> None:
    policy = staged(0.25)
    ids = [f"request-{number}" for number in range(2000)]

    first = [policy.choose(request(request_id=i), disagreed_on()) for i in ids]
    again = [staged(0.25).choose(request(request_id=i), disagreed_on()) for i in ids[:50]]

    steered = [decision.arm is Arm.LEARNED for decision in first]
    assert np.mean(steered) == pytest.approx(0.25, abs=0.03)
    assert [d.arm for d in again] == [d.arm for d in first[:50]]
    for decision in first:
        learned = decision.arm is Arm.LEARNED
        assert decision.engine_id == ("a" if learned else "b")
        assert decision.other is not None
        assert decision.other.engine_id == ("b" if learned else "a")


def test_without_a_named_fallback_the_base_with_its_price_steers() -> None:
    waiting = candidate("a", load=load(num_waiting_reqs=50), cached_prefix_tokens=100)
    free = candidate("b", load=load())
    steered_by_the_net = model(weights=dislikes("num_waiting_reqs"))
    policy = StagedPolicy(LodestarPolicy(Random(0), steered_by_the_net), share=0.0)

    decision = policy.choose(request(), [waiting, free])

    assert (decision.engine_id, decision.policy) == ("a", "lodestar_base")
    assert decision.other is not None
    assert decision.other.engine_id == "b"
    assert decision.residuals is not None, "the learned policy's own prediction is kept"


def test_the_base_never_explores() -> None:
    exploring = Exploration(share=1.0, max_extra_s=9.0)
    near = [candidate("a", cached_prefix_tokens=100), candidate("b")]

    decisions = [
        StagedPolicy(LodestarPolicy(Random(seed), exploration=exploring), share=0.0).choose(
            request(), near
        )
        for seed in range(20)
    ]

    assert {(decision.engine_id, decision.propensity) for decision in decisions} == {("a", 1.0)}
    assert {d.other.engine_id for d in decisions if d.other is not None} == {"a", "b"}


def test_the_price_counts_what_was_really_sent() -> None:
    """Everything goes to b: only there does a choice delay others."""
    policy = staged(0.0)
    busy = [candidate(name, inflight_prefill_tokens=500) for name in "ab"]
    for number in range(40):
        candidates = [busy[0], candidate("b", inflight_prefill_tokens=500)]
        candidates[0] = candidate("a", inflight_requests=5, inflight_prefill_tokens=500)
        policy.choose(request(now_s=number * 0.1), candidates)

    proposed = policy.learned.consider(request(now_s=4.0), busy)

    assert proposed.prices_s is not None
    assert proposed.prices_s[0] == 0.0
    assert proposed.prices_s[1] > 0.0


def test_the_learned_policy_is_found_wherever_it_is() -> None:
    learned = LodestarPolicy(Random(0))

    assert learned_in(learned) is learned
    assert learned_in(StagedPolicy(learned, share=0.0)) is learned
    assert learned_in(LeastRequest(Random(0))) is None


def test_the_outcome_of_either_arm_labels_it() -> None:
    decision = staged(1.0).choose(request(), disagreed_on())
    outcome = Outcome(
        request_id="r1", engine_id=decision.engine_id, ending=Ending.CANCELLED, ttft_s=None,
        waited_s=3.0,
    )  # fmt: skip

    row = training_row(decision, outcome, 100)

    assert row is not None
    assert row.censored


def test_who_waits_moves_where_the_learned_policy_chose_and_would_choose_another() -> None:
    asked, policy = request(prompt_tokens=1000), LodestarPolicy(Random(0))
    before = [candidate("a", cached_prefix_tokens=600), candidate("b")]
    decision = policy.consider(asked, before)
    assert decision.engine_id == "a"

    assert not would_move(policy, asked, before, decision)
    as_good = [candidate("a"), candidate("b", cached_prefix_tokens=5)]
    assert not would_move(policy, asked, as_good, decision)
    better = [candidate("a", inflight_prefill_tokens=9000), candidate("b")]
    assert would_move(policy, asked, better, decision)
    gone = [candidate("b"), candidate("c")]
    assert would_move(policy, asked, gone, decision)
    assert not would_move(LeastRequest(Random(0)), asked, better, decision)


def test_what_the_fallback_chose_stays_where_it_is() -> None:
    decision = staged(0.0).choose(request(), disagreed_on())

    assert not would_move(staged(0.0), request(), disagreed_on(), decision)
    assert would_move(staged(1.0), request(), disagreed_on(), replace(decision, arm=Arm.LEARNED))
