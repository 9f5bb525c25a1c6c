"""What every policy in the registry keeps to."""

from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import pytest

from lodestar_router.core.types import Candidate, PrefixViewKind, RoutedRequest, replace
from lodestar_router.policy.base import Policy
from lodestar_router.policy.registry import POLICIES
from tests.factories import candidate, load, request

DRAWN = {"random", "power_of_two"}  # which engines are looked at is itself drawn
LOAD_BLIND = {"prefixaware"}
LOAD_AWARE = sorted(set(POLICIES) - DRAWN - LOAD_BLIND)
PREFIX_BLIND = sorted(name for name in POLICIES if not POLICIES[name](Random(0)).reads_prompt)

Build = Callable[[int], Policy]


@pytest.fixture(params=sorted(POLICIES))
def build(request: pytest.FixtureRequest) -> Build:
    factory = POLICIES[request.param]
    return lambda seed: factory(Random(seed))


def fleet(size: int, seed: int = 0) -> list[Candidate]:
    """Engines of all sorts: busy and idle, reported and not, with and without a match."""
    rng = Random(seed)
    return [
        candidate(
            f"engine-{number:02}",
            cached_prefix_tokens=rng.choice([0, 0, 160, 512, 992]),
            gpu=rng.choice(["A30", "V100", "unknown"]),
            load=rng.choice([None, load(num_running_reqs=rng.randrange(40))]),
            prefix_view=rng.choice(list(PrefixViewKind)),
            inflight_requests=rng.randrange(20),
            inflight_prefill_requests=rng.randrange(4),
            inflight_prefill_tokens=rng.randrange(8000),
            inflight_decode_tokens=rng.randrange(30_000),
            kv_blocks=rng.choice([None, 2048]),
            block_size_tokens=rng.choice([None, 16, 32]),
            log_residual=rng.uniform(-0.5, 0.5),
        )
        for number in range(size)
    ]


def one_is_best() -> list[Candidate]:
    """By load and by cache alike, one engine is far better than the others."""
    busy = [
        candidate(
            name,
            inflight_requests=30,
            inflight_prefill_requests=20,
            inflight_prefill_tokens=60_000,
            load=load(num_running_reqs=20, num_waiting_reqs=10, kv_cache_usage_ratio=0.9),
        )
        for name in "acd"
    ]
    return [*busy, candidate("b", cached_prefix_tokens=992, load=load())]


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_exactly_one_candidate_is_chosen(build: Build, size: int) -> None:
    candidates = fleet(size)

    decision = build(0).choose(request(), candidates)

    assert list(decision.candidates) == candidates
    assert 0 <= decision.chosen < size
    assert decision.engine_id == candidates[decision.chosen].engine.engine_id
    assert len(decision.costs) == size
    assert np.isfinite(decision.costs).all()
    assert 0.0 < decision.propensity <= 1.0
    assert decision.reason


def test_a_single_candidate_is_certain(build: Build) -> None:
    decision = build(0).choose(request(), [candidate("a", inflight_requests=500)])

    assert (decision.chosen, decision.propensity, decision.reason) == (0, 1.0, "only")


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_decision_bears_the_registered_name(name: str) -> None:
    policy = POLICIES[name](Random(0))

    assert policy.name == name
    assert policy.choose(request(), fleet(3)).policy == name


def test_inputs_are_left_unchanged(build: Build) -> None:
    asked, candidates = request(), fleet(9)
    asked_before, before = replace(asked), list(candidates)

    build(0).choose(asked, candidates)

    assert asked == asked_before
    assert candidates == before
    assert candidates == fleet(9)


def test_a_decision_does_not_follow_the_caller_s_list(build: Build) -> None:
    candidates = fleet(5)
    decision = build(0).choose(request(), candidates)
    chosen = decision.engine_id

    candidates.reverse()

    assert decision.engine_id == chosen


def test_the_same_seed_makes_the_same_choices(build: Build) -> None:
    def choices(policy: Policy) -> list[tuple[int, float]]:
        decisions = [policy.choose(request(), fleet(5, seed % 3)) for seed in range(40)]
        return [(decision.chosen, decision.propensity) for decision in decisions]

    assert choices(build(7)) == choices(build(7))


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_the_order_of_candidates_does_not_matter_without_a_tie(name: str) -> None:
    candidates = one_is_best()

    for shuffle_seed in range(10):
        shuffled = Random(shuffle_seed).sample(candidates, len(candidates))
        decision = POLICIES[name](Random(0)).choose(request(), shuffled)

        if name == "roundrobin":
            assert decision.engine_id == "a"
        elif name not in DRAWN:
            assert decision.engine_id == "b"
            assert decision.propensity == 1.0


def test_costs_belong_to_engines_not_to_places(build: Build) -> None:
    candidates = fleet(12)
    shuffled = Random(1).sample(candidates, len(candidates))

    def costs(given: Sequence[Candidate]) -> dict[str, float]:
        decision = build(0).choose(request(), given)
        return {
            c.engine.engine_id: float(cost) for c, cost in zip(given, decision.costs, strict=True)
        }

    assert costs(shuffled) == pytest.approx(costs(candidates), rel=1e-5)


@pytest.mark.parametrize("name", PREFIX_BLIND)
def test_a_policy_that_does_not_read_the_prompt_ignores_what_is_cached(name: str) -> None:
    candidates = fleet(12)
    uncached = [replace(c, cached_prefix_tokens=0) for c in candidates]

    with_cache = POLICIES[name](Random(0)).choose(request(), candidates)
    without = POLICIES[name](Random(0)).choose(request(), uncached)

    assert (with_cache.chosen, with_cache.costs) == (without.chosen, without.costs)


def test_engines_that_report_nothing_are_tolerated(build: Build) -> None:
    silent = [
        candidate(name, load=None, kv_blocks=None, block_size_tokens=None, prefix_view=view)
        for name, view in zip("abcd", PrefixViewKind, strict=True)
    ]
    unknown_prompt = request(tokens_known=False, prompt_tokens=1, max_output_tokens=None)

    decision = build(0).choose(unknown_prompt, silent)

    assert np.isfinite(decision.costs).all()


@pytest.mark.parametrize("prompt_tokens", [1, 2, 131_072])
def test_prompts_of_any_length_are_routed(build: Build, prompt_tokens: int) -> None:
    asked: RoutedRequest = request(prompt_tokens=prompt_tokens)
    candidates = [candidate(name, cached_prefix_tokens=prompt_tokens - 1) for name in "ab"]

    decision = build(0).choose(asked, candidates)

    assert np.isfinite(decision.costs).all()


@pytest.mark.parametrize("name", LOAD_AWARE)
@pytest.mark.parametrize("engines", [2, 5, 16])
def test_simultaneous_requests_see_each_other_s_choices(name: str, engines: int) -> None:
    policy = POLICIES[name](Random(0))
    candidates = [candidate(f"engine-{number:02}") for number in range(engines)]
    asked = request(prompt_tokens=2000)
    sent = [0] * engines

    for _ in range(4 * engines):
        chosen = policy.choose(asked, candidates).chosen
        sent[chosen] += 1
        candidates[chosen] = after_dispatch(candidates[chosen], asked)

    assert max(sent) - min(sent) <= 1


def after_dispatch(chosen: Candidate, sent: RoutedRequest) -> Candidate:
    """The candidate once the router has counted `sent` against its engine."""
    engine = chosen.engine
    uncached_tokens = sent.prompt_tokens - chosen.cached_prefix_tokens
    return replace(
        chosen,
        engine=replace(
            engine,
            inflight_requests=engine.inflight_requests + 1,
            inflight_prefill_requests=engine.inflight_prefill_requests + 1,
            inflight_prefill_tokens=engine.inflight_prefill_tokens + uncached_tokens,
        ),
    )
