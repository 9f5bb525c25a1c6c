"""Paired comparison of two policies over seeds.

    ratio = exp(mean of ln(a_s / b_s) over seeds s)           of geometric means
    95 % interval = exp(mean ± t(n - 1) * deviation / sqrt(n))

Seeds pair runs on equal arrivals. Over several cells, ln ratios of a seed are first
averaged over the cells, so the interval is again one over seeds.
"""

from collections.abc import Mapping, Sequence
from math import exp, log, sqrt
from typing import Any, NamedTuple

# Student's t, 97.5 %, for 1, 2, ... degrees of freedom; beyond the table the normal's.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.96


class Ratio(NamedTuple):
    """A ratio with its interval; None where one seed says nothing of the spread."""

    ratio: float
    low: float | None
    high: float | None
    seeds: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.ratio:.2f}"
        return f"{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]"


def paired_ratio(
    rows: Sequence[Mapping[str, Any]], policy: str, reference: str, field: str
) -> Ratio | None:
    """policy / reference over the cells and seeds that both have; None without any."""
    values = {(r["cell"], r["seed"], r["policy"]): r.get(field) for r in rows}
    logs: dict[int, dict[str, float]] = {}
    for (cell, seed, name), value in values.items():
        other = values.get((cell, seed, reference))
        if name == policy and value and other and value > 0 and other > 0:
            logs.setdefault(seed, {})[cell] = log(value / other)
    cells = {cell for by_cell in logs.values() for cell in by_cell}
    complete = [by_cell for by_cell in logs.values() if len(by_cell) == len(cells)]
    if not complete:
        return None
    return interval([sum(by_cell.values()) / len(by_cell) for by_cell in complete])


def shared_cells(rows: Sequence[Mapping[str, Any]], policy: str, reference: str) -> set[str]:
    """Cells in which both have run with a seed."""
    ran = {(row["cell"], row["seed"], row["policy"]) for row in rows}
    return {cell for cell, seed, name in ran if name == policy and (cell, seed, reference) in ran}


def log_ratios(
    rows: Sequence[Mapping[str, Any]], policy: str, reference: str, field: str
) -> dict[int, float]:
    """Seed -> ln(policy / reference), of one cell's rows; seeds that both have."""
    values = {(row["seed"], row["policy"]): row[field] for row in rows}
    return {
        seed: log(value / values[seed, reference])
        for (seed, name), value in values.items()
        if name == policy and (seed, reference) in values
    }


def interval(logs: Sequence[float]) -> Ratio:
    """From one ln ratio per seed."""
    count = len(logs)
    mean = sum(logs) / count
    if count == 1:
        return Ratio(exp(mean), None, None, 1)
    deviation = sqrt(sum((value - mean) ** 2 for value in logs) / (count - 1))
    student = _T[count - 2] if count - 2 < len(_T) else _NORMAL
    half = student * deviation / sqrt(count)
    return Ratio(exp(mean), exp(mean - half), exp(mean + half), count)


def geometric_mean(values: Sequence[float]) -> float | None:
    """None unless all are positive and there are some."""
    if not values or min(values) <= 0:
        return None
    return exp(sum(log(value) for value in values) / len(values))
