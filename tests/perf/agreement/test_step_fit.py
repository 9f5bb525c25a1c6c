"""The fitted step-time model."""

from random import Random

import pytest

from perf.agreement.step_fit import LinearStepTime, StepSample, errors, fit

TRUE = LinearStepTime(0.004, 0.006, 6e-5, 2e-8, 1e-4, 8e-7)
PREFILLS = [[(new, context)] for new in (64, 512, 2048) for context in (0, 1024, 3072)]
DECODES = [(1, 64), (1, 2048), (4, 8192), (16, 1024), (16, 32_768)]


def samples(true: LinearStepTime, noise: float = 0.0) -> list[StepSample]:
    rng = Random(1)

    def sample(chunks: list[tuple[int, int]], decodes: int, kv_tokens: int) -> StepSample:
        seconds = true.seconds(chunks, decodes, kv_tokens) * (1 + rng.uniform(-noise, noise))
        return StepSample(
            chunks=chunks, decodes=decodes, decode_kv_tokens=kv_tokens, seconds=seconds
        )

    return [sample(chunks, 0, 0) for chunks in PREFILLS] + [sample([], *d) for d in DECODES]


def test_a_linear_engine_is_found_again() -> None:
    found = fit(samples(TRUE))

    mixed = ([(700, 100), (30, 0)], 9, 12_000)
    assert found.seconds(*mixed) == pytest.approx(TRUE.seconds(*mixed))
    assert max(map(abs, errors(found, samples(TRUE)))) < 1e-9


def test_noise_moves_the_fit_by_less_than_itself() -> None:
    found = fit(samples(TRUE, noise=0.1))

    assert max(map(abs, errors(found, samples(TRUE)))) < 0.1


def test_no_cost_is_below_zero() -> None:
    cheaper_together = LinearStepTime(0.004, 0.0, 6e-5, 0.0, -1e-4, 1e-6)

    found = fit(samples(cheaper_together))

    assert found.per_decode_s == 0.0
    assert min(found.step_s, found.per_chunk_s, found.per_token_s, found.per_kv_token_s) >= 0.0
    assert max(map(abs, errors(found, samples(cheaper_together)))) < 0.25


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="5 samples"):
        fit(samples(TRUE)[:5])
