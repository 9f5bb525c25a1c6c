"""The fit finds the rates that made the answers, and stays sensible before it can."""

from random import Random

import pytest

from lodestar_router.features.decode_fit import DEFAULT_DECODE_RATE, DecodeFit, DecodeRate

TRUE = DecodeRate(0.02, 1.5e-4, 2.5e-7)


def answers(fit: DecodeFit, gpu: str, rate: DecodeRate, count: int, noise: float = 0.02) -> None:
    rng = Random(1)
    for _ in range(count):
        tokens = rng.randrange(20, 400)
        prefill_tokens = rng.uniform(0, 300) * tokens
        context_tokens = rng.uniform(0, 60_000)
        exact_s = (
            rate.step_s * tokens
            + rate.s_per_prefill_token * prefill_tokens
            + rate.s_per_context_token * context_tokens * tokens
        )
        fit.observe(
            gpu,
            tokens=tokens,
            prefill_tokens=prefill_tokens,
            context_tokens=context_tokens,
            seconds=exact_s * rng.gauss(1.0, noise),
        )


def test_the_rates_behind_the_answers_are_found() -> None:
    fit = DecodeFit()

    answers(fit, "A30", TRUE, 300)

    found = fit.rate("A30")
    assert found.step_s == pytest.approx(TRUE.step_s, rel=0.05)
    assert found.s_per_prefill_token == pytest.approx(TRUE.s_per_prefill_token, rel=0.05)
    assert found.s_per_context_token == pytest.approx(TRUE.s_per_context_token, rel=0.15)


def test_kinds_are_told_apart_and_an_unseen_one_gets_the_pooled_rate() -> None:
    fit = DecodeFit()

    answers(fit, "A100", TRUE, 100)
    answers(fit, "V100", DecodeRate(0.06, 1.5e-4, 2.5e-7), 100)

    assert fit.rate("A100").step_s == pytest.approx(0.02, rel=0.1)
    assert fit.rate("V100").step_s == pytest.approx(0.06, rel=0.1)
    assert 0.02 < fit.rate("T4").step_s < 0.06


def test_before_any_answer_the_prior_and_after_one_nearly() -> None:
    fit = DecodeFit()
    assert fit.rate("A30") == DEFAULT_DECODE_RATE

    fit.observe("A30", tokens=1, prefill_tokens=0.0, context_tokens=0.0, seconds=1.0)

    assert fit.rate("A30").step_s < 0.2, "one short answer is no reason to believe in seconds"


def test_a_change_of_speed_is_followed() -> None:
    fit = DecodeFit()
    answers(fit, "A30", TRUE, 2000)

    answers(fit, "A30", DecodeRate(0.04, 1.5e-4, 2.5e-7), 1500)

    assert fit.rate("A30").step_s == pytest.approx(0.04, rel=0.1)


def test_no_rate_is_negative() -> None:
    """Prefill that seems to make answers faster is noise."""
    fit = DecodeFit()
    for prefill_tokens in range(0, 4000, 40):
        fit.observe(
            "A30",
            tokens=100,
            prefill_tokens=prefill_tokens,
            context_tokens=1000.0,
            seconds=5.0 - prefill_tokens / 1000,
        )

    rate = fit.rate("A30")
    assert min(rate.step_s, rate.s_per_prefill_token, rate.s_per_context_token) >= 0.0
    assert rate.step_s == pytest.approx(0.03, rel=0.3)
