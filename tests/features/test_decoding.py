"""What answers take is learned from answers, and what they take from each other is told."""

import pytest

from lodestar_router.core.types import Candidate
from lodestar_router.features.decode_fit import DEFAULT_DECODE_RATE
from lodestar_router.features.decoding import DEFAULT_SPREAD, Decoding
from tests.factories import candidate, request


def answered(
    decoding: Decoding,
    engine: Candidate,
    tpot_s: float,
    times: int,
    *,
    at_s: float = 0.0,
    tokens: int = 101,
) -> float:
    """Answers one after the other on an engine; returns when the last one ended."""
    now_s = at_s
    for _ in range(times):
        answer = decoding.first_token(request(prompt_tokens=500), engine, now_s)
        now_s += tpot_s * (tokens - 1)
        decoding.ended(answer, tokens, now_s)
    return now_s


def test_before_any_answer_kinds_are_equal_and_the_loaded_engine_is_slower() -> None:
    idle, loaded = candidate("a", gpu="A30"), candidate("b", inflight_decode_tokens=50_000)

    forecast = Decoding().forecast(request(prompt_tokens=1000), [idle, loaded])

    rate = DEFAULT_DECODE_RATE
    assert forecast.tpot_s[0] == pytest.approx(rate.step_s + 1000 * rate.s_per_context_token)
    assert forecast.tpot_s[1] > forecast.tpot_s[0]
    assert forecast.tpot_spread == [DEFAULT_SPREAD] * 2


def test_a_slow_kind_is_known_by_its_answers() -> None:
    decoding = Decoding()
    fast, slow = candidate("a", gpu="A100"), candidate("b", gpu="V100")
    now_s = answered(decoding, fast, 0.015, 60)
    now_s = answered(decoding, slow, 0.060, 60, at_s=now_s)

    forecast = decoding.forecast(request(prompt_tokens=500, now_s=now_s), [fast, slow])

    assert forecast.tpot_s == pytest.approx([0.015, 0.060], rel=0.15)
    assert max(forecast.tpot_spread) < DEFAULT_SPREAD


def test_an_engine_slower_than_its_kind_is_noticed() -> None:
    decoding = Decoding()
    well, sick, other = (candidate(name, gpu="A30") for name in "abc")
    now_s = answered(decoding, well, 0.02, 100)
    for _ in range(8):
        now_s = answered(decoding, well, 0.02, 3, at_s=now_s)
        now_s = answered(decoding, sick, 0.08, 1, at_s=now_s)

    tpot_s = decoding.forecast(request(now_s=now_s), [well, sick, other]).tpot_s

    assert tpot_s[1] > 2 * tpot_s[0]
    assert tpot_s[2] < 1.5 * tpot_s[0]


def test_prefill_lately_computed_on_an_engine_slows_what_decodes_there() -> None:
    decoding = Decoding()
    busy, quiet = candidate("a"), candidate("b")
    for number in range(60):
        asked = request(prompt_tokens=2000)
        decoding.first_token(asked, busy, 0.5 * number)

    soon = decoding.forecast(request(now_s=30.0), [busy, quiet]).tpot_s
    later = decoding.forecast(request(now_s=600.0), [busy, quiet]).tpot_s

    assert soon[0] > 1.5 * soon[1]
    assert later[0] == pytest.approx(later[1], rel=0.01)


def test_others_wait_for_the_uncached_prompt_and_read_its_context() -> None:
    alone = candidate("a")
    many = candidate("b", inflight_requests=10)
    holder = candidate("c", inflight_requests=10, cached_prefix_tokens=900)

    others_s = Decoding().forecast(request(prompt_tokens=1000), [alone, many, holder]).others_s

    assert others_s[0] == 0.0
    assert others_s[1] > others_s[2] > 0.0
    uncached = DEFAULT_DECODE_RATE.s_per_prefill_token * 900
    assert others_s[1] - others_s[2] == pytest.approx(10 * uncached)


def test_prefill_beside_an_answer_explains_its_length() -> None:
    """Equal engines, one with prefills between its tokens: the kind is not slower for it."""
    decoding = Decoding()
    engine = candidate("a", gpu="A30")
    now_s = 0.0
    for number in range(200):
        prefills = number % 4
        answer = decoding.first_token(request(prompt_tokens=500), engine, now_s)
        for _ in range(prefills):
            beside = decoding.first_token(request(prompt_tokens=2000), engine, now_s + 0.1)
            decoding.ended(beside, None, now_s + 0.2)
        now_s += 0.02 * 100 + 1e-4 * 2000 * prefills
        decoding.ended(answer, 101, now_s)

    quiet_s = decoding.forecast(request(prompt_tokens=500, now_s=now_s + 900.0), [engine]).tpot_s

    assert quiet_s[0] == pytest.approx(0.02, rel=0.15)


def test_an_answer_that_is_cut_gives_its_context_back_and_teaches_nothing() -> None:
    decoding, engine = Decoding(), candidate("a")
    before = decoding.forecast(request(now_s=1000.0), [engine]).tpot_s

    answer = decoding.first_token(request(prompt_tokens=100_000), engine, 0.0)
    decoding.ended(answer, None, 9.0)

    assert decoding.forecast(request(now_s=1000.0), [engine]).tpot_s == pytest.approx(before)


@pytest.mark.parametrize(("tokens", "took_s"), [(1, 5.0), (0, 5.0), (50, 0.0)])
def test_answers_without_a_gap_between_tokens_have_no_speed(tokens: int, took_s: float) -> None:
    decoding, engine = Decoding(), candidate("a")

    decoding.ended(decoding.first_token(request(), engine, 0.0), tokens, took_s)

    assert decoding.spread("unknown") == DEFAULT_SPREAD


def test_expected_length_comes_from_counted_answers() -> None:
    decoding = Decoding()
    decoding.counted(request(), 64)

    assert decoding.forecast(request(), [candidate("a")]).output_tokens == 64
    assert decoding.forecast(request(max_output_tokens=8), [candidate("a")]).output_tokens == 8
