"""One policy against the best of the others, cell by cell: could any of them have been better?

    rival of a cell = the policy with the lowest mean TTFT there (geometric, over the seeds
                      it shares with the judged one), chosen after the fact: a bar that no
                      single policy reaches

Out of the running: the judged policy and its variants, the paper's own learned policies
and llm-d's predictor (they are judged one by one in the table over all cells), and
greedy_oracle, which knows what no router can.

In       rows of a run, the judged policy.
Out      lines (cell, rival, ratios); ratios are rival / judged, so above 1 is ahead of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from perf.routing.statistics import Ratio, geometric_mean, interval, log_ratios

Rows = Sequence[Mapping[str, Any]]

_NO_HEURISTIC = ("lodestar", "llmd_predicted", "greedy_oracle")


class Rival(NamedTuple):
    """The best of the others in one cell."""

    cell: str
    policy: str
    mean: Ratio
    p99: Ratio


def is_heuristic(policy: str) -> bool:
    """Whether a policy neither learns nor knows the future."""
    return not policy.startswith(_NO_HEURISTIC)


def rivals(rows: Rows, judged: str) -> list[Rival]:
    """One per cell that the judged policy shares with a heuristic, in order of appearance."""
    found: list[Rival] = []
    for cell in dict.fromkeys(row["cell"] for row in rows):
        of_cell = [row for row in rows if row["cell"] == cell]
        seeds = {row["seed"] for row in of_cell if row["policy"] == judged}
        means: dict[str, float] = {}
        for policy in dict.fromkeys(row["policy"] for row in of_cell):
            mine = [r for r in of_cell if r["policy"] == policy and r["seed"] in seeds]
            mean = geometric_mean([row["ttft_mean_s"] for row in mine])
            complete = {row["seed"] for row in mine} == seeds
            if mean is not None and complete and is_heuristic(policy) and policy != judged:
                means[policy] = mean
        if means:
            best = min(means, key=means.__getitem__)
            mean_ratio = _ratio(of_cell, best, judged, "ttft_mean_s")
            found.append(Rival(cell, best, mean_ratio, _ratio(of_cell, best, judged, "ttft_p99_s")))
    return found


def overall(rows: Rows, found: Sequence[Rival], judged: str, field: str) -> Ratio:
    """Geometric mean over the cells, with the interval over the seeds all of them have."""
    by_seed: dict[int, list[float]] = {}
    for rival in found:
        of_cell = [row for row in rows if row["cell"] == rival.cell]
        for seed, log in log_ratios(of_cell, rival.policy, judged, field).items():
            by_seed.setdefault(seed, []).append(log)
    complete = [logs for logs in by_seed.values() if len(logs) == len(found)]
    return interval([sum(logs) / len(logs) for logs in complete])


def _ratio(rows: Rows, policy: str, judged: str, field: str) -> Ratio:
    return interval(list(log_ratios(rows, policy, judged, field).values()))
