"""What a comparison says."""

from dataclasses import replace
from typing import Any

import pytest

from perf.agreement.compare import compare, real_numbers, table
from tests.perf.agreement.recordings import MEASURED, recording, sent, totals

RECORDED = recording(
    [sent(0.0, [1], ttft_s=0.1, e2e_s=0.5), sent(1.0, [1], ttft_s=0.3, e2e_s=0.3, output=1)],
    engines=[
        totals(1, cached_tokens=50, queue_s=0.02, prefill_s=0.06),
        totals(1, queue_s=0.04, prefill_s=0.2),
    ],
)


def replayed(ttft_mean_s: float) -> dict[str, Any]:
    return {
        "ttft_mean_s": ttft_mean_s, "ttft_p50_s": 0.2, "ttft_p99_s": 0.3,
        "ttft_inside_mean_s": 0.15, "tpot_mean_s": 0.1, "hit_ratio": 0.25,
        "per_engine_requests": {"A30-0": 3, "A30-1": 1},
    }  # fmt: skip


def test_real_numbers_are_the_clients_and_the_engines() -> None:
    numbers = real_numbers(RECORDED)

    assert numbers["ttft_mean_s"] == pytest.approx(0.2)
    assert numbers["ttft_inside_mean_s"] == pytest.approx(0.16)
    assert numbers["tpot_mean_s"] == pytest.approx(0.1)  # a single token has none
    assert numbers["hit_ratio"] == pytest.approx(0.25)
    assert numbers["shares"] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("virtual_s", "difference", "agrees"),
    [
        pytest.param([0.2, 0.21], 0.025, True, id="close"),
        pytest.param([0.16, 0.18], -0.15, False, id="too-fast"),
        pytest.param([0.16, 0.24], 0.0, True, id="its-mean-counts"),
    ],
)
def test_the_difference_is_that_of_the_mean_over_seeds(
    virtual_s: list[float], difference: float, agrees: bool
) -> None:
    result = compare(RECORDED, list(map(replayed, virtual_s)), [replayed(0.3)], limit=0.1)

    assert result["difference"] == pytest.approx(difference)
    assert result["agrees"] is agrees
    assert result["virtual_ttft_mean_range_s"] == [min(virtual_s), max(virtual_s)]
    assert result["difference_with_default_delays"] == pytest.approx(0.5)
    assert result["virtual"]["shares"] == [0.75, 0.25]


def test_a_disturbed_calibration_shows() -> None:
    measured = replace(RECORDED, measured=[MEASURED], busy_before=8.9)

    result = compare(measured, [replayed(0.2)], [replayed(0.2)], limit=0.2)

    (described,) = result["measured"]
    assert (described["fit_error_median"], described["fit_error_max"]) == (0.03, 0.05)
    assert described["per_token_s"] == 1e-4
    assert "| 8.9 |" in table([result]).splitlines()[2]


def test_the_table_has_both_sides_of_every_result() -> None:
    result = compare(RECORDED, [replayed(0.21)], [replayed(0.21)], limit=0.1)

    lines = table([result, result]).splitlines()

    assert len(lines) == 2 + 2 * 2
    assert len({line.count("|") for line in lines}) == 1
    assert "| 200.0 |" in lines[2]
    assert "+5.0 % (limit 10 %)" in lines[3]
