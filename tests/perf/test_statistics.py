"""Reports: their numbers on results made by hand."""

from math import exp, log, sqrt

import numpy as np
import pytest

from perf.routing.plots import best_first, window_means
from perf.routing.statistics import geometric_mean, paired_ratio
from perf.routing.tables import default_reference, report_text
from tests.perf.small import report_row as row


def test_a_ratio_is_of_geometric_means_with_a_paired_interval() -> None:
    rows = [row("a", 1, 2.0), row("a", 2, 8.0), row("b", 1, 1.0), row("b", 2, 2.0)]

    found = paired_ratio(rows, "a", "b", "ttft_mean_s")

    # ln 2 and ln 4: mean 1.5 ln 2, deviation ln 2 / sqrt 2, t of one degree 12.706.
    half = 12.706 * (log(2) / sqrt(2)) / sqrt(2)
    assert found is not None
    assert found.ratio == pytest.approx(2**1.5)
    assert found.ratio == pytest.approx(sqrt(2.0 * 8.0) / sqrt(1.0 * 2.0))
    assert found.low == pytest.approx(exp(1.5 * log(2) - half))
    assert found.high == pytest.approx(exp(1.5 * log(2) + half))


def test_cells_are_averaged_within_a_seed_first() -> None:
    rows = [
        *(row("a", seed, 2.0, "x") for seed in (1, 2)),
        *(row("a", seed, 8.0, "y") for seed in (1, 2)),
        *(row("b", seed, 1.0, cell) for seed in (1, 2) for cell in ("x", "y")),
    ]

    found = paired_ratio(rows, "a", "b", "ttft_mean_s")

    assert found is not None
    assert (found.ratio, found.low, found.high) == pytest.approx((4.0, 4.0, 4.0))
    assert found.seeds == 2


def test_seeds_without_a_partner_do_not_count() -> None:
    rows = [row("a", 1, 3.0), row("a", 2, 99.0), row("b", 1, 1.0)]

    found = paired_ratio(rows, "a", "b", "ttft_mean_s")

    assert found is not None
    assert found.ratio == pytest.approx(3.0)
    assert (found.low, found.seeds) == (None, 1)
    assert paired_ratio(rows, "a", "c", "ttft_mean_s") is None


def test_the_table_over_all_cells_says_how_many_a_policy_shares() -> None:
    rows = [row(policy, seed, 1.0, cell) for policy in "ab" for seed in (1, 2, 3) for cell in "xyz"]
    rows = [r for r in rows if r["policy"] == "a" or (r["cell"] != "z" and r["seed"] < 3)]

    overall = report_text(rows, "a").split("## all 3 cells")[1].split("##")[0]

    line = next(line for line in overall.splitlines() if line.startswith("| b"))
    assert [value.strip() for value in line.split("|")[1:4]] == ["b", "2", "2"]


def test_the_best_of_a_cell_is_told_by_the_seeds_of_the_reference() -> None:
    rows = [
        *(row("a", 1, 2.0, cell) for cell in "xy"),
        *(row("b", seed, mean, cell) for seed, mean in ((1, 3.0), (2, 0.1)) for cell in "xy"),
    ]

    overall = report_text(rows, "a").split("## all 2 cells")[1].split("##")[0]

    best = {
        line.split("|")[1].strip(): line.split("|")[-2].strip()
        for line in overall.splitlines()
        if line.startswith("| ")
    }
    assert (best["a"], best["b"]) == ("2", "0")


def test_geometric_means_need_positive_values() -> None:
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)
    assert geometric_mean([]) is None
    assert geometric_mean([0.0, 1.0]) is None


def test_a_report_has_a_table_per_cell_and_one_over_all() -> None:
    rows = [row(p, s, t, c) for c in "xy" for p, t in (("a", 1.0), ("b", 2.0)) for s in (1, 2)]

    text = report_text(rows, "a")

    x = text.split("## x")[1]
    line = next(line for line in x.splitlines() if line.startswith("| b"))
    values = [value.strip() for value in line.split("|")[1:-1]]
    assert values == [
        "b", "2", "2.000", "2.000", "2.000", "4.000", "2.00 [2.00, 2.00]", "2.00 [2.00, 2.00]",
        "30.0", "4.00", "0.900", "0.250", "1.20", "2", "50/90",
    ]  # fmt: skip
    overall = text.split("## all 2 cells")[1].split("##")[0]
    best = [line.split("|")[-2].strip() for line in overall.splitlines() if line.startswith("| a")]
    assert best == ["2"]


def test_the_project_s_own_policy_is_the_reference_if_it_took_part() -> None:
    assert default_reference([row("a", 1, 1.0), row("lodestar", 1, 1.0)]) == "lodestar"
    assert default_reference([row("a", 1, 1.0), row("b", 1, 1.0)]) == "a"


def test_windows_average_their_arrivals() -> None:
    means = window_means(np.array([0.0, 1.0, 59.0]), np.array([1.0, 3.0, 7.0]), 60.0)

    assert means[0] == 2.0
    assert means[-1] == 7.0
    assert np.isnan(means[1:-1]).all()


def test_plots_list_the_best_policy_first() -> None:
    rows = [row("a", 1, 3.0), row("b", 1, 1.0), row("a", 2, 1.0), row("b", 2, 2.0)]

    assert best_first(rows) == ["b", "a"]
