"""Rows of measurements as the overhead table, in Markdown."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from perf.overhead.cells import CELLS

Row = dict[str, Any]


def table(rows: Sequence[Row]) -> str:
    """One line per router: medians over the repeats; columns that nobody has are left out."""
    cells = [cell for cell in CELLS.values() if any(row["cell"] == cell.name for row in rows)]
    head = [
        "router",
        *(cell.title for cell in cells),
        "added p50 / p99 ms, one at a time",
        "resident MB",
        "errors",
    ]
    lines = [head, ["---"] * len(head)]
    for router in dict.fromkeys(row["router"] for row in rows):
        own = [row for row in rows if row["router"] == router]
        lines.append(
            [
                router,
                *(_median(own, cell.name, "cpu_us", ".1f" if cell.per_chunk else ".0f")
                  for cell in cells),
                f"{_median(own, 'latency', 'added_p50_ms', '.2f')} / "
                f"{_median(own, 'latency', 'added_p99_ms', '.2f')}",
                _median(own, "memory", "resident_mb", ".0f"),
                str(sum(row.get("errors", 0) for row in own)),
            ]
        )  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _median(rows: Iterable[Row], cell: str, field: str, form: str) -> str:
    values = [row[field] for row in rows if row["cell"] == cell]
    return format(median(values), form) if values else "-"
