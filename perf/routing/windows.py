"""How long requests waited just after something happened, beside a run that it spared.

    python -m perf.routing.windows DIR --at 200
    python -m perf.routing.windows DIR --at 200 --reference lodestar

In       results of cells `NAME` and `NAME-restart-...`, equal but for one event at `--at`; or
         of policies in cells where something happens then.
Out      a table: mean TTFT of NAME, or of the reference, for arrivals in each window after
         that, and the other's over it, paired by seed, 95 % intervals (see statistics.py).
Errors   ConfigError where arrivals of a pair differ: what happened has changed them; or
         where nothing arrived.
"""

import argparse
import sys
from collections.abc import Sequence
from math import log
from pathlib import Path

import numpy as np

from lodestar_router.errors import ConfigError
from perf.routing.statistics import geometric_mean, interval
from perf.routing.store import Row, Store, read_rows
from perf.routing.tables import grid

WINDOWS_S = ((0.0, 10.0), (10.0, 30.0), (30.0, 60.0))
_MARK = "-restart-"


Run = tuple[str, str]  # cell, policy


def window_means(
    store: Store, runs: tuple[Run, Run], seed: int, window_s: tuple[float, float]
) -> tuple[float, float]:
    """Mean TTFT of arrivals in the window, in each of the two."""
    means, arrivals = [], []
    for cell, policy in runs:
        with np.load(store.samples_path(cell, policy, seed)) as samples:
            arrived_at_s = samples["arrived_at_s"]
            inside = (arrived_at_s >= window_s[0]) & (arrived_at_s < window_s[1])
            if not inside.any():
                raise ConfigError(f"'{cell}' has no arrivals from {window_s[0]:g} s on")
            arrivals.append(arrived_at_s[inside])
            means.append(float(samples["ttft_s"][inside].astype(np.float64).mean()))
    if not np.array_equal(*arrivals):
        raise ConfigError(f"{runs[0]} and {runs[1]} differ in their arrivals")
    return means[0], means[1]


def table(store: Store, rows: Sequence[Row], at_s: float, reference: str | None) -> str:
    """One line for each cell and policy that has another to be held against."""
    seeds: dict[Run, set[int]] = {}
    for row in rows:
        seeds.setdefault((row["cell"], row["policy"]), set()).add(row["seed"])
    lines = []
    for (cell, policy), mine in seeds.items():
        spared = (cell, reference) if reference else (cell.split(_MARK)[0], policy)
        shared = sorted(mine & seeds.get(spared, set()))
        if spared == (cell, policy) or not shared:
            continue
        shown = []
        for begin_s, end_s in WINDOWS_S:
            window_s, runs = (at_s + begin_s, at_s + end_s), (spared, (cell, policy))
            means = [window_means(store, runs, seed, window_s) for seed in shared]
            usual_s = geometric_mean([usual for usual, _ in means])
            ratio = interval([log(mean / usual) for usual, mean in means])
            shown.append(f"{usual_s:.3f} s, {ratio}")
        lines.append((cell, policy, str(len(shared)), *shown))
    headings = ("cell", "policy", "seeds", *(f"{b:g} to {e:g} s after" for b, e in WINDOWS_S))
    return grid([headings, *lines])


def main(argv: list[str]) -> int:
    """0 done, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.routing.windows",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--at", type=float, required=True, help="when it happened, seconds")
    parser.add_argument("--reference", help="policy to hold the others against, in each cell")
    options = parser.parse_args(argv)
    try:
        store, rows = Store(options.directory), read_rows(options.directory)
        print(table(store, rows, options.at, options.reference))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
