"""Mooncake's estimate from the profiles."""

from random import Random

import pytest

from lodestar_router.emulator.profiles import load_profile
from perf.routing.policies.mooncake_profiled import MooncakeProfiled, profiled_prefill_s
from tests.factories import candidate, request

MODEL = "llama-3-8b"


def test_a_prompt_takes_its_chunks() -> None:
    seconds = load_profile("A30", MODEL).step_time.seconds

    expected_s = seconds([(2048, 0)], 0, 0) + seconds([(1024, 2048)], 0, 0)

    assert profiled_prefill_s(MODEL)("A30", 3050, 20) == pytest.approx(expected_s)


def test_cached_tokens_shorten_and_kinds_differ() -> None:
    prefill_s = profiled_prefill_s(MODEL)

    assert prefill_s("A30", 1024, 1024) < prefill_s("A30", 2048, 0)
    assert prefill_s("A100", 2048, 0) < 0.6 * prefill_s("A30", 2048, 0)


def test_a_fast_engine_may_have_more_queued() -> None:
    fleet = [
        candidate("a", gpu="A30", inflight_prefill_requests=1, inflight_prefill_tokens=2000),
        candidate("b", gpu="A100", inflight_prefill_requests=1, inflight_prefill_tokens=2200),
    ]

    decision = MooncakeProfiled(Random(0)).choose(request(model=MODEL, prompt_tokens=2000), fleet)

    assert decision.engine_id == "b"
