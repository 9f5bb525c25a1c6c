"""The table: medians, one line per router, nothing that was not measured."""

from typing import Any

from perf.overhead.report import table


def row(router: str, cell: str, repeat: int = 0, **values: Any) -> dict[str, Any]:
    return {"router": router, "cell": cell, "repeat": repeat, "errors": 0, **values}


def test_a_cell_is_the_median_over_the_repeats() -> None:
    rows = [row("ours", "json_2k", n, cpu_us=us) for n, us in enumerate((90.0, 60.0, 61.0))]

    line = table(rows).splitlines()[-1]

    assert line.startswith("| ours | 61 |")


def test_columns_that_nobody_has_are_left_out_and_gaps_are_shown() -> None:
    rows = [row("a", "json_2k", cpu_us=50.0), row("b", "sse_paced", cpu_us=13.24)]

    head, _, a, b = table(rows).splitlines()

    assert "JSON 2 KB" in head
    assert "one paced SSE chunk" in head
    assert "32 KB" not in head
    assert a.startswith("| a | 50 | - |")
    assert b.startswith("| b | - | 13.2 |")


def test_errors_add_up() -> None:
    rows = [row("a", "json_2k", n, cpu_us=1.0, errors=2) for n in range(3)]

    assert table(rows).rstrip().endswith("| 6 |")
