"""Choices of both legs."""

from random import Random
from typing import Unpack

import pytest

from lodestar_router.core.types import Candidate, Leg
from lodestar_router.features.decoding import Decoding
from lodestar_router.policy.decode_load import DecodeLoad
from lodestar_router.policy.disaggregated import both_legs
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.policy.registry import POLICIES
from lodestar_router.policy.staged import StagedPolicy, would_move
from tests.factories import SnapshotFields, candidate, load, request

DECODE = request(leg=Leg.DECODE, prompt_tokens=1000, max_output_tokens=100)


def receiving(name: str, **fields: Unpack[SnapshotFields]) -> Candidate:
    """An engine that gets the prompt whole, as all do in a decode leg."""
    return candidate(name, cached_prefix_tokens=999, **fields)


def decode_load() -> DecodeLoad:
    return DecodeLoad(Random(0), Decoding())


@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"session"}))
def test_an_idle_engine_gets_the_answer(name: str) -> None:
    policy = both_legs(POLICIES[name](Random(0)), Random(0))
    busy = [
        receiving(engine, inflight_requests=40, inflight_decode_tokens=90_000) for engine in "acd"
    ]

    chosen = [
        policy.choose(DECODE, [*busy, receiving("b")]).engine_id for _ in range(1 + len(busy))
    ]

    by_load = name not in ("roundrobin", "random", "power_of_two")  # these take turns, or draw
    assert "b" in chosen if name == "roundrobin" else not by_load or set(chosen) == {"b"}


def test_prefill_goes_by_cached_prompt() -> None:
    policy = both_legs(POLICIES["prefix_cache_and_load"](Random(0)), Random(0))
    candidates = [candidate("a"), candidate("b", cached_prefix_tokens=900)]

    assert policy.choose(request(leg=Leg.PREFILL), candidates).engine_id == "b"
    assert policy.choose(request(leg=None), candidates).engine_id == "b"


def test_legs_take_turns_of_their_own() -> None:
    policy = both_legs(POLICIES["roundrobin"](Random(0)), Random(0))
    candidates = [candidate("a"), candidate("b")]

    first = [policy.choose(request(leg=leg), candidates).engine_id for leg in Leg]
    second = [policy.choose(request(leg=leg), candidates).engine_id for leg in Leg]

    assert (first, second) == (["a", "a"], ["b", "b"])


def test_reasons_of_the_decode_leg_do_not_speak_of_prompts() -> None:
    policy = both_legs(POLICIES["least_request"](Random(0)), Random(0))

    decision = policy.choose(DECODE, [receiving("a", inflight_requests=3), receiving("b")])

    assert (decision.engine_id, decision.reason) == ("b", "load")


def test_the_learned_policy_learns_nothing_of_prefill_from_a_decode_leg() -> None:
    policy = both_legs(LodestarPolicy(Random(0)), Random(0))
    candidates = [receiving("a"), receiving("b")]

    assert policy.choose(request(leg=Leg.PREFILL), candidates).features is not None
    assert policy.choose(DECODE, candidates).features is None


def test_what_the_learned_policy_on_trial_knows_of_decoding_is_used() -> None:
    learned = LodestarPolicy(Random(0))
    policy = both_legs(StagedPolicy(learned, share=0.0), Random(0))

    assert policy.choose(DECODE, [receiving("a")]).policy == "decode_load"


def test_a_short_queue_is_better_than_a_long_one() -> None:
    reports = {"a": load(num_running_reqs=8, num_waiting_reqs=8), "b": load(num_running_reqs=8)}

    decision = decode_load().choose(
        DECODE, [candidate(name, load=report) for name, report in reports.items()]
    )

    assert decision.engine_id == "b"
    assert decision.costs[0] == pytest.approx(2 * decision.costs[1])  # one answer more, by half


def test_an_engine_without_room_for_the_prompt_has_it_wait() -> None:
    full = load(num_running_reqs=1, kv_cache_usage_ratio=0.95)
    engines = [
        candidate("a", load=full, kv_blocks=1000, block_size_tokens=16),
        candidate("b", load=load(num_running_reqs=1), kv_blocks=1000, block_size_tokens=16),
    ]

    decision = decode_load().choose(DECODE, engines)

    assert decision.engine_id == "b"
    assert decision.costs[0] > decision.costs[1]


def test_a_prompt_that_waits_for_its_engine_moves_as_any_request() -> None:
    policy = both_legs(StagedPolicy(LodestarPolicy(Random(0)), share=1.0), Random(0))
    prefill = request(leg=Leg.PREFILL, prompt_tokens=1000)
    decision = policy.choose(prefill, [candidate("a"), candidate("b", inflight_prefill_tokens=900)])
    assert decision.engine_id == "a"

    now = [candidate("a", inflight_prefill_tokens=9000), candidate("b")]

    assert would_move(policy, prefill, now, decision)
