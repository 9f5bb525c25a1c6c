from math import sqrt
from typing import Any

import pytest

from perf.routing.rivals import overall, rivals
from perf.routing.tables import report_text


def row(cell: str, policy: str, seed: int, mean_s: float, p99_s: float = 1.0) -> dict[str, Any]:
    return {
        "cell": cell, "policy": policy, "seed": seed, "ttft_mean_s": mean_s, "ttft_p99_s": p99_s,
        "ttft_p50_s": mean_s, "ttft_p90_s": mean_s, "tpot_mean_s": 0.05, "e2e_mean_s": 2.0,
        "hit_ratio": 0.5, "per_engine_requests": {"a": 1}, "decision_us_p50": 1.0,
        "decision_us_p99": 1.0,
    }  # fmt: skip


ROWS = [
    *(row("x", "lodestar", seed, 1.0) for seed in (1, 2)),
    row("x", "lmetric", 1, 1.2, 3.0), row("x", "lmetric", 2, 1.2, 3.0),
    row("x", "dynamo", 1, 1.1),  # better, but of one seed only
    row("x", "greedy_oracle", 1, 0.5), row("x", "greedy_oracle", 2, 0.5),
    row("x", "lodestar_paper", 1, 0.6), row("x", "lodestar_paper", 2, 0.6),
    *(row("y", "lodestar", seed, 2.0) for seed in (1, 2)),
    *(row("y", "lmetric", seed, 9.0) for seed in (1, 2)),
    *(row("y", "mooncake", seed, 1.8) for seed in (1, 2)),
]  # fmt: skip


def test_each_cell_has_its_own_best_heuristic() -> None:
    found = rivals(ROWS, "lodestar")

    assert [(rival.cell, rival.policy) for rival in found] == [("x", "lmetric"), ("y", "mooncake")]
    assert [rival.mean.ratio for rival in found] == pytest.approx([1.2, 0.9])
    assert found[0].p99.ratio == pytest.approx(3.0)


def test_over_all_cells_the_mean_is_geometric_and_paired() -> None:
    total = overall(ROWS, rivals(ROWS, "lodestar"), "lodestar", "ttft_mean_s")

    assert total.ratio == pytest.approx(sqrt(1.2 * 0.9))
    assert total.seeds == 2


def test_the_report_has_them_in_a_table() -> None:
    text = report_text(ROWS, "lodestar")

    assert "against the best heuristic of each cell" in text
    assert "greedy_oracle are not among them" in text
    assert "| y              | mooncake       | 0.90" in text


def test_without_a_heuristic_there_is_no_table() -> None:
    alone = [row(cell, "lodestar", 1, 1.0) for cell in ("x", "y")]

    assert "best heuristic" not in report_text(alone, "lodestar")
