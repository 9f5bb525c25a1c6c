"""Compare routing policies in virtual time.

    python -m perf.routing run CELLS.yaml --policies a,b,c --seeds 5 --jobs 2 --out DIR
    python -m perf.routing report DIR
    python -m perf.routing knee CELLS.yaml
    python -m perf.routing workload CELLS.yaml

`run` goes on where an earlier one into the same DIR was interrupted; rows of cells or
code that have changed since are made again. `report` prints tables and writes them and
plots into DIR; of some cells only (`--cells 'a30-*-075'`) it writes plots alone.
"""

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Timer
from time import monotonic

from lodestar_router.errors import ConfigError
from perf.routing.catalog import named, policies
from perf.routing.cell_files import read_cells
from perf.routing.cells import Cell
from perf.routing.knee import KneeCache, measure
from perf.routing.plan import make_plan
from perf.routing.runner import git_commit, run
from perf.routing.store import Row, Store, read_rows
from perf.routing.tables import default_reference, report_text
from perf.routing.workloads.describe import describe

INTERRUPTED = 130  # as a shell says it
_LEAVE_S = 3.0
_BAR = 24  # characters


def main(argv: list[str]) -> int:
    """0 done, 2 bad input, 130 interrupted."""
    options = _parser().parse_args(argv)
    try:
        return int(options.act(options, argv))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr, flush=True)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m perf.routing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("run", help="run cells")
    _add_cells(command)
    command.add_argument(
        "--policies",
        help="names with commas, or live (those of the router); all unless given: "
        + ", ".join(policies()),
    )
    command.add_argument("--seeds", type=int, default=5, help="how many (default 5)")
    command.add_argument("--first-seed", type=int, default=1)
    command.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    command.add_argument("--out", type=Path, required=True, help="directory of the results")
    command.add_argument(
        "--keep", action="store_true", help="do not make rows again that other code made"
    )
    command.set_defaults(act=_run)
    command = commands.add_parser("report", help="tables and plots of results")
    command.add_argument("directory", type=Path)
    command.add_argument("--reference", help="policy that ratios are to (default lodestar)")
    command.add_argument("--cells", help="names or patterns with commas; all unless given")
    command.add_argument("--no-plots", action="store_true")
    command.set_defaults(act=_report)
    command = commands.add_parser("knee", help="measure the load that each cell's fleet can take")
    _add_cells(command)
    command.set_defaults(act=_knee)
    command = commands.add_parser("workload", help="lengths and reuse of each cell's requests")
    _add_cells(command)
    command.set_defaults(act=_workload)
    return parser


def _add_cells(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="CELLS.yaml")
    command.add_argument("--cells", help="names with commas; all of the file unless given")
    command.add_argument(
        "--traces",
        type=Path,
        default=os.environ.get("LODESTAR_TRACES"),
        help="directory of third-party traces (default: $LODESTAR_TRACES)",
    )
    command.add_argument(
        "--cache", type=Path, default=Path(".build/routing"), help="where knees are kept"
    )


def _cells(options: argparse.Namespace) -> list[Cell]:
    cells = read_cells(options.file, options.traces and Path(options.traces))
    if not options.cells:
        return cells
    by_name = {cell.name: cell for cell in cells}
    wanted = options.cells.split(",")
    for name in wanted:
        if name not in by_name:
            raise ConfigError(f"there is no cell '{name}'; there are {', '.join(by_name)}")
    return [by_name[name] for name in wanted]


def _knees(options: argparse.Namespace) -> KneeCache:
    return KneeCache(options.cache / "knees.json")


def _run(options: argparse.Namespace, argv: list[str]) -> int:
    cells = _cells(options)
    names = named(options.policies)
    if options.seeds < 1 or options.jobs < 1:
        raise ConfigError("--seeds and --jobs must be 1 at least")
    store = Store(options.out)
    store.note(
        {
            "command": shlex.join(["python", "-m", "perf.routing", *argv]),
            "git_commit": git_commit(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
        }
    )
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    progress = _Progress()
    made = run(
        cells, names, seeds,
        store=store, knees=_knees(options), jobs=options.jobs, progress=progress,
        keep=options.keep,
    )  # fmt: skip
    progress.close()
    print(f"{made} runs made, {len(cells) * len(names) * len(seeds) - made} were there already")
    print(f"results: {options.out / 'results.jsonl'}")
    return 0


def _report(options: argparse.Namespace, argv: list[str]) -> int:
    rows = _of_cells(read_rows(options.directory), options.cells)
    reference = options.reference or default_reference(rows)
    if reference not in {row["policy"] for row in rows}:
        raise ConfigError(f"no results of policy '{reference}'")
    text = report_text(rows, reference)
    print(text)
    if not options.cells:
        (options.directory / "report.md").write_text(text, encoding="utf-8")
    if options.no_plots:
        return 0
    from perf.routing.plots import write_plots

    try:
        plots = write_plots(Store(options.directory), rows)
    except ImportError:
        print("no plots: matplotlib is missing (pip install -e '.[bench]')", file=sys.stderr)
        return 0
    print(f"{len(plots)} plots: {options.directory / 'plots'}")
    return 0


def _of_cells(rows: Sequence[Row], wanted: str | None) -> Sequence[Row]:
    """Those whose cell fits one of the patterns."""
    if not wanted:
        return rows
    patterns = wanted.split(",")
    found = [row for row in rows if any(fnmatchcase(row["cell"], one) for one in patterns)]
    if not found:
        raise ConfigError(f"no results of cells '{wanted}'")
    return found


def _knee(options: argparse.Namespace, argv: list[str]) -> int:
    knees = _knees(options)
    for cell in _cells(options):
        knee = knees.known(cell)
        if knee is None:
            knee = measure(cell)
            knees.put(cell, knee)
        print(f"{cell.name}: {knee:.2f} requests/s")
    return 0


def _workload(options: argparse.Namespace, argv: list[str]) -> int:
    for cell in _cells(options):
        # Lengths and reuse do not depend on the rate: any knee will do.
        plan = make_plan(cell, 10.0, 1)
        print(f"{cell.name}: {describe(plan)}")
    return 0


class _Progress:
    """A bar on a terminal, a line per run elsewhere."""

    def __init__(self) -> None:
        self._started_s = monotonic()
        self._live = sys.stderr.isatty()

    def __call__(self, what: str, done: int, of: int) -> None:
        if not done:
            self._started_s = monotonic()  # measuring knees says nothing of how long runs take
        elapsed_s = monotonic() - self._started_s
        left = f"{elapsed_s / done * (of - done):.0f} s left" if done else ""
        filled = _BAR * done // max(of, 1)
        line = f"[{'#' * filled}{'.' * (_BAR - filled)}] {done}/{of} {left} {what}"
        if self._live:
            print(f"\r\x1b[K{line[:150]}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar's line."""
        if self._live:
            print(file=sys.stderr)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code == INTERRUPTED:
        # An interrupt while a worker starts can leave the pool's thread waiting for ever.
        last_resort = Timer(_LEAVE_S, os._exit, (code,))
        last_resort.daemon = True
        last_resort.start()
    sys.exit(code)
