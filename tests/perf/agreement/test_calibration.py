"""From what an engine answers to samples of its steps."""

import asyncio

import pytest

from perf.agreement.calibration import KINDS, Kind, period, tried
from perf.agreement.measure import RunError
from perf.agreement.step_fit import StepSample, fit


def test_a_step_lasts_as_long_as_it_does_while_all_decode() -> None:
    # One alone is quicker; the gap counts only where both have tokens.
    early = [0.0, 0.01, 0.02, 0.03, *(0.03 + 0.02 * k for k in range(1, 11))]
    late = [0.03 + 0.02 * k for k in range(11)]

    assert period([early, late]) == pytest.approx(0.02)


def test_streams_that_hardly_overlap_are_refused() -> None:
    with pytest.raises(RunError, match="together"):
        period([[0.0, 0.1, 0.2, 0.3, 0.4], [0.35, 0.45, 0.55, 0.65, 0.75]])


def test_a_step_of_both_kinds_has_decodes_that_have_just_begun() -> None:
    assert Kind(512, 64, 4, 1024).sample(0.2) == StepSample(
        chunks=[(512, 64)], decodes=4, decode_kv_tokens=4 * 1027, seconds=0.2
    )


def test_decodes_alone_have_their_mean_length() -> None:
    assert Kind(0, 0, 8, 1024).sample(0.02) == StepSample(
        chunks=[], decodes=8, decode_kv_tokens=8 * 1048, seconds=0.02
    )


def test_the_kinds_that_are_measured_determine_every_coefficient() -> None:
    def seconds(sample: StepSample) -> float:
        pairs = sum(new * (context + new / 2) for new, context in sample.chunks)
        tokens = sum(new for new, _ in sample.chunks)
        return (
            0.01 + 0.001 * len(sample.chunks) + 2e-4 * tokens + 3e-7 * pairs
            + 3e-4 * sample.decodes + 2e-6 * sample.decode_kv_tokens
        )  # fmt: skip

    shapes = [kind.sample(1.0) for kind in KINDS]
    found = fit([kind.sample(seconds(shape)) for kind, shape in zip(KINDS, shapes, strict=True)])

    assert found.step_s == pytest.approx(0.01)
    assert found.per_chunk_s == pytest.approx(0.001)
    assert found.per_token_s == pytest.approx(2e-4)
    assert found.per_pair_s == pytest.approx(3e-7)
    assert found.per_decode_s == pytest.approx(3e-4)
    assert found.per_kv_token_s == pytest.approx(2e-6)


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_a_measurement_is_tried_three_times(failures: int) -> None:
    calls = 0

    async def measure() -> float:
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise RunError("busy")
        return 0.5

    if failures < 3:
        assert asyncio.run(tried(measure, 0.0)) == 0.5
    else:
        with pytest.raises(RunError, match="busy"):
            asyncio.run(tried(measure, 0.0))
    assert calls == min(failures + 1, 3)
