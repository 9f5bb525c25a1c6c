"""Results as text: one table per cell, and one over all cells.

Times are geometric means over seeds, in seconds. Ratios are to the reference
policy, paired by seed, with 95 % intervals (see statistics.py): below 1 is faster
than the reference. Goodput is the share of requests within the limits of measure.py.
"""

from collections.abc import Sequence
from math import inf
from typing import Any

from perf.routing.rivals import overall, rivals
from perf.routing.statistics import geometric_mean, paired_ratio, shared_cells

Rows = Sequence[dict[str, Any]]

_HEADINGS = (
    "policy", "seeds", "mean s", "P50 s", "P90 s", "P99 s", "mean ratio", "P99 ratio",
    "TPOT ms", "e2e s", "goodput", "hits", "busiest/mean", "lost", "µs P50/P99",
)  # fmt: skip
# Of the table over all cells; of goodput more is better, of the others less.
_RATIOS = {
    "mean": "ttft_mean_s",
    "P50": "ttft_p50_s",
    "P90": "ttft_p90_s",
    "P99": "ttft_p99_s",
    "TPOT": "tpot_mean_s",
    "e2e": "e2e_mean_s",
    "goodput": "goodput_ratio",
}

_RIVALS_ARE = (
    "The best is chosen after the fact, by mean TTFT, among the heuristics that ran with the same "
    "seeds: policies that learn (lodestar\\*, lodestar_paper\\*, llmd_predicted\\*) and "
    "greedy_oracle are not among them."
)


def report_text(rows: Rows, reference: str) -> str:
    """Everything, in markdown."""
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    commits = sorted({str(row.get("git_commit")) for row in rows})
    parts = [
        f"TTFT by cell; ratios to {reference}, paired by seed, 95 % intervals. "
        f"Commit {', '.join(commits)}."
    ]
    if len(cells) > 1:
        parts.append(f"## all {len(cells)} cells\n\n{_overall(rows, reference)}")
        against = _rivals(rows, reference)
        if against:
            title = f"## {reference} against the best heuristic of each cell"
            parts.append(f"{title}\n\n{_RIVALS_ARE}\n\n{against}")
    for cell in cells:
        of_cell = [row for row in rows if row["cell"] == cell]
        parts.append(f"## {cell}\n\n{_cell_table(of_cell, reference)}")
    return "\n\n".join(parts) + "\n"


def policies_in(rows: Rows) -> list[str]:
    """In order of first appearance."""
    return list(dict.fromkeys(row["policy"] for row in rows))


def default_reference(rows: Rows) -> str:
    """The project's own policy if it took part, else the first."""
    names = policies_in(rows)
    return "lodestar" if "lodestar" in names else names[0]


def _cell_table(rows: Rows, reference: str) -> str:
    lines = [_line(rows, policy, reference) for policy in policies_in(rows)]
    lines.sort(key=lambda line: inf if line[2] == "-" else float(line[2]))
    return grid([_HEADINGS, *lines])


def _line(rows: Rows, policy: str, reference: str) -> tuple[str, ...]:
    mine = [row for row in rows if row["policy"] == policy]
    times = ("ttft_mean_s", "ttft_p50_s", "ttft_p90_s", "ttft_p99_s")
    lost = sum(row.get("rejected", 0) + row.get("unfinished", 0) for row in mine)
    return (
        policy,
        str(len(mine)),
        *(_shown(_over_seeds(mine, field), 3) for field in times),
        str(paired_ratio(rows, policy, reference, "ttft_mean_s") or "-"),
        str(paired_ratio(rows, policy, reference, "ttft_p99_s") or "-"),
        _shown(_over_seeds(mine, "tpot_mean_s", 1e3), 1),
        _shown(_over_seeds(mine, "e2e_mean_s"), 2),
        _shown(_mean([row["goodput_ratio"] for row in mine if "goodput_ratio" in row]), 3),
        _shown(_mean([row["hit_ratio"] for row in mine]), 3),
        _shown(_mean([_imbalance(row) for row in mine]), 2),
        str(lost),
        f"{_shown(_over_seeds(mine, 'decision_us_p50'), 0)}/"
        f"{_shown(_over_seeds(mine, 'decision_us_p99'), 0)}",
    )


def _overall(rows: Rows, reference: str) -> str:
    """Ratios over all cells that a policy and the reference share, and how many those are."""
    lines = []
    for policy in policies_in(rows):
        ratios = [paired_ratio(rows, policy, reference, field) for field in _RATIOS.values()]
        seeds = "-" if ratios[0] is None else str(ratios[0].seeds)
        cells = str(len(shared_cells(rows, policy, reference)))
        best = sum(policy == _best(rows, cell, reference) for cell in {row["cell"] for row in rows})
        lines.append((policy, cells, seeds, *(str(ratio or "-") for ratio in ratios), str(best)))
    headings = ("policy", "cells", "seeds", *_RATIOS, "best of all in cells")
    lines.sort(key=lambda line: inf if line[3] == "-" else float(line[3].split()[0]))
    return grid([headings, *lines])


def _rivals(rows: Rows, reference: str) -> str:
    """By how much the reference is ahead; empty where there is nothing to compare."""
    found = rivals(rows, reference)
    if not found:
        return ""
    lines = [(r.cell, r.policy, str(r.mean), str(r.p99)) for r in found]
    fields = ("ttft_mean_s", "ttft_p99_s")
    total = [str(overall(rows, found, reference, field)) for field in fields]
    headings = ("cell", "best heuristic", "its mean / ours", "its P99 / ours")
    return grid([headings, *lines, ("geometric mean", "", *total)])


def _best(rows: Rows, cell: str, reference: str) -> str | None:
    """The policy with the lowest mean TTFT in a cell, of those with the reference's seeds."""
    of_cell = [row for row in rows if row["cell"] == cell]
    seeds = {row["seed"] for row in of_cell if row["policy"] == reference}
    means: dict[str, float] = {}
    for policy in policies_in(of_cell):
        mine = [row for row in of_cell if row["policy"] == policy and row["seed"] in seeds]
        mean = _over_seeds(mine, "ttft_mean_s")
        if mean is not None and {row["seed"] for row in mine} == seeds:
            means[policy] = mean
    return min(means, key=means.__getitem__) if means else None


def _over_seeds(rows: Rows, field: str, scale: float = 1.0) -> float | None:
    values = [row[field] for row in rows if row.get(field) is not None]
    mean = geometric_mean(values)
    return None if mean is None else mean * scale


def _imbalance(row: dict[str, Any]) -> float:
    """Requests of the busiest engine over the mean."""
    shares = list(row["per_engine_requests"].values())
    return max(shares) * len(shares) / max(sum(shares), 1) if shares else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def grid(lines: Sequence[Sequence[str]]) -> str:
    """A markdown table, padded."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    padded = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])
