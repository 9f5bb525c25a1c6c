"""GpuStepTime against the published predictions and measurements of each profile."""

import pytest

from lodestar_router.emulator.profiles import EngineProfile, load_profile

# The Lodestar repository's medians on an idle L20 behind its gateway:
# (new tokens, cached tokens, seconds to the first token).
L20_TTFT = [
    (252, 1003, 0.082),
    (495, 1981, 0.117),
    (983, 3934, 0.216),
    (1958, 7832, 0.442),
    (1257, 0, 0.228),
    (2477, 0, 0.420),
    (9702, 0, 1.655),
]
GATEWAY_S = 0.037  # HTTP, tokenizing and gateway of that deployment


def prefill_s(profile: EngineProfile, new_tokens: int, context: int = 0) -> float:
    """Seconds of a lone prompt, in chunks of the profile's budget."""
    total_s, left = 0.0, new_tokens
    while left:
        chunk = min(left, profile.max_num_batched_tokens)
        total_s += profile.step_time.seconds([(chunk, context)], 0, 0)
        context, left = context + chunk, left - chunk
    return total_s


@pytest.mark.parametrize(("new_tokens", "cached_tokens", "measured_s"), L20_TTFT)
def test_l20_ttft_is_within_6_percent_of_the_measurement(
    new_tokens: int, cached_tokens: int, measured_s: float
) -> None:
    profile = load_profile("L20", "llama-3-8b")

    predicted_s = prefill_s(profile, new_tokens, cached_tokens) + GATEWAY_S

    assert predicted_s == pytest.approx(measured_s, rel=0.06)


@pytest.mark.parametrize(
    ("gpu", "model", "ttft_1k_ms", "ttft_8k_ms", "decode_1_ms", "decode_32_ms"),
    [
        ("A30", "llama-3-8b", 157, 1361, 21.2, 30.9),
        ("V100", "llama-3-8b", 199, 1905, 26.3, 41.0),
        ("L20", "llama-3-8b", 157, 1391, 21.0, 28.0),
        ("A10", "llama-3-8b", 258, 2292, 32.4, 47.1),
        ("A40", "llama-3-8b", 151, 1343, 29.9, 40.1),
        ("A100", "llama-3-8b", 75, 657, 11.6, 15.8),
        ("H100", "llama-3-8b", 27, 211, 7.1, 9.2),
        ("H200", "llama-3-8b", 24, 202, 5.9, 7.4),
        ("A30", "qwen2.5-1.5b", 36, 319, 6.6, 9.0),
        ("A30", "qwen3-4b", 90, 872, 13.2, 22.1),
        ("A100", "llama-2-7b", 70, 632, 10.8, 23.6),
        ("A100", "llama-3-70b-tp4", 198, 1633, 27.1, 32.1),
        ("H100", "llama-3-70b-tp4", 77, 576, 16.5, 18.8),
    ],
)
def test_predictions_stay_those_of_the_fit(
    gpu: str,
    model: str,
    ttft_1k_ms: float,
    ttft_8k_ms: float,
    decode_1_ms: float,
    decode_32_ms: float,
) -> None:
    profile = load_profile(gpu, model)

    predicted_ms = [
        1000 * seconds
        for seconds in (
            prefill_s(profile, 1024),
            prefill_s(profile, 8192),
            profile.step_time.seconds([], 1, 1024),
            profile.step_time.seconds([], 32, 32 * 1024),
        )
    ]

    # The fit's own table is rounded, to 2 digits where times are short.
    expected_ms = [ttft_1k_ms, ttft_8k_ms, decode_1_ms, decode_32_ms]
    assert predicted_ms == pytest.approx(expected_ms, rel=0.02)


def test_prefill_beside_decodes_makes_reading_their_keys_dearer() -> None:
    time = load_profile("A30", "llama-3-8b").step_time
    alone_s = time.seconds([(512, 0)], 0, 0)

    few_s = time.seconds([(512, 0)], 8, 8 * 512) - alone_s
    many_s = time.seconds([(512, 0)], 8, 8 * 8192) - alone_s
    unmixed_s = time.seconds([], 8, 8 * 8192) - time.seconds([], 8, 8 * 512)

    assert many_s - few_s == pytest.approx(2.0 * unmixed_s)


def test_asynchronous_scheduling_hides_host_time_and_eager_mode_adds_some() -> None:
    plain, hidden, eager = (
        load_profile("A30", "llama-3-8b", **options).step_time.seconds([], 32, 32_000)
        for options in ({}, {"async_scheduling": True}, {"eager": True})
    )

    assert plain - hidden == pytest.approx(0.0008 + 32 * 1e-5)
    assert eager - hidden == pytest.approx(0.003 + 32 * 4e-5)


def test_host_time_shows_when_it_is_longer_than_the_gpus() -> None:
    time = load_profile("H200", "qwen2.5-1.5b", eager=True, async_scheduling=True).step_time

    assert time.seconds([], 1, 16) == pytest.approx(0.003 + 4e-5)
