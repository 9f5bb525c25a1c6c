"""What every benchmark-only policy keeps to, attached to a simulation."""

from collections.abc import Callable
from random import Random

import numpy as np
import pytest

from lodestar_router.core.types import replace
from lodestar_router.policy.base import Policy
from perf.routing.policies import BENCHMARK_POLICIES
from tests.factories import candidate, load, request
from tests.perf.policies.fakes import FakeSimulation, three

Build = Callable[[int], Policy]


@pytest.fixture(params=sorted(BENCHMARK_POLICIES))
def build(request: pytest.FixtureRequest) -> Build:
    """A policy by its seed."""
    if request.param.startswith("llmd_"):
        pytest.importorskip("xgboost")

    def attached(seed: int) -> Policy:
        policy = BENCHMARK_POLICIES[request.param](Random(seed))
        attach = getattr(policy, "attach", None)
        if attach is not None:
            attach(FakeSimulation())
        assert policy.name == request.param
        return policy

    return attached


ASKED = request(prompt_tokens=100, model="llama-3-8b")


@pytest.mark.parametrize("size", [1, 2, 7])
def test_exactly_one_candidate_is_chosen_and_nothing_changed(build: Build, size: int) -> None:
    rng = Random(0)
    candidates = [
        candidate(
            f"engine-{number}",
            gpu="A30",
            cached_prefix_tokens=rng.choice([0, 48, 96]),
            load=rng.choice([None, load(num_waiting_reqs=rng.randrange(9))]),
            inflight_requests=rng.randrange(9),
            block_size_tokens=rng.choice([None, 16]),
        )
        for number in range(size)
    ]
    asked, before = replace(ASKED), list(candidates)

    decision = build(0).choose(asked, candidates)

    assert (asked, candidates) == (ASKED, before)
    assert list(decision.candidates) == candidates
    assert 0 <= decision.chosen < size
    assert len(decision.costs) == size
    assert np.isfinite(decision.costs).all()
    assert 0.0 < decision.propensity <= 1.0
    assert decision.reason


def test_a_single_candidate_is_certain(build: Build) -> None:
    decision = build(0).choose(ASKED, [candidate("a", gpu="V100")])

    assert (decision.chosen, decision.propensity, decision.reason) == (0, 1.0, "only")


def test_the_same_seed_makes_the_same_choices(build: Build) -> None:
    def choices(policy: Policy) -> list[int]:
        fleet = [replace(c, engine=replace(c.engine, gpu="A30")) for c in three()]
        return [
            policy.choose(replace(ASKED, request_id=f"r{number}"), fleet).chosen
            for number in range(20)
        ]

    assert choices(build(7)) == choices(build(7))
