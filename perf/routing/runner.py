"""Runs cells: which are to do, in how many processes, with what progress shown.

    knees first (one task per fleet and workload that needs one), then one task per
    (cell, policy, seed); a finished one is a row in the store at once

In       cells, policies, seeds, a store.
Out      rows; returns how many were run.
Cost     see simulation.py. A worker keeps the plan it used last, so policies of one
         cell and seed share it.
Errors   what a worker raises ends the run; rows that are there stay.
"""

import gc
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any, TypeVar

import lodestar_router
from perf.routing.catalog import make_policy
from perf.routing.cells import Cell
from perf.routing.knee import KneeCache, knee_key, measure
from perf.routing.measure import row, save_samples
from perf.routing.plan import make_plan
from perf.routing.simulation import Simulation
from perf.routing.store import Row, Store
from perf.routing.workloads.base import Ask

T = TypeVar("T")
Progress = Callable[[str, int, int], None]  # (what ended, done, of how many)

# One process per core: threads of numpy's BLAS would only get in each other's way.
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Task:
    """One row to make."""

    cell: Cell
    policy: str
    seed: int
    knee: float | None


def run(
    cells: Sequence[Cell],
    policies: Sequence[str],
    seeds: Sequence[int],
    *,
    store: Store,
    knees: KneeCache,
    jobs: int,
    progress: Progress,
    keep: bool = False,
) -> int:
    """Make every row that is not there yet; `keep` counts rows of other code as there."""
    origin = {"git_commit": git_commit(), "code_hash": code_hash()}
    done = {
        (r["cell"], r["policy"], r["seed"], r.get("cell_hash"))
        for r in store.rows()
        if keep or r.get("code_hash") == origin["code_hash"]
    }
    missing = [
        (cell, policy, seed)
        for cell in cells
        for seed in seeds
        for policy in policies
        if (cell.name, policy, seed, cell.fingerprint) not in done
    ]
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    # Spawned, not forked: a fork would inherit threads' locks and the parent's BLAS settings.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_ignore_interrupts)
    try:
        unknown = {
            knee_key(cell): cell
            for cell, _, _ in missing
            if cell.needs_knee and knees.known(cell) is None
        }
        for cell, knee in _each(pool, measure, unknown.values(), jobs):
            knees.put(cell, knee)
            progress(f"knee of {cell.name}: {knee:.2f} requests/s", 0, len(missing))
        tasks = [
            Task(cell, policy, seed, knees.known(cell) if cell.needs_knee else None)
            for cell, policy, seed in missing
        ]
        with_store = [_StoredTask(task, store, origin) for task in tasks]
        for count, (stored, result) in enumerate(_each(pool, _perform, with_store, jobs), 1):
            store.append(result)
            task = stored.task
            progress(f"{task.cell.name} {task.policy} {task.seed}", count, len(tasks))
    except BaseException:
        # Workers may be minutes from the end of a run that nobody wants any more.
        for worker in multiprocessing.active_children():
            worker.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    return len(missing)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches workers too; what ends them is the command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True, slots=True)
class _StoredTask:
    task: Task
    store: Store
    origin: dict[str, str]


def _perform(stored: _StoredTask) -> Row:
    """In a worker: one run, its samples saved."""
    task = stored.task
    cell, seed = task.cell, task.seed
    plan = _plan(cell, task.knee, seed)
    started_s = process_time()
    anew = partial(make_policy, task.policy, seed)
    simulation = Simulation(cell, plan, anew(), seed, anew)
    # Millions of objects live until the run ends: looking for cycles among them is in vain.
    gc.collect()
    gc.disable()
    simulation.run()
    gc.enable()
    cpu_s = process_time() - started_s
    save_samples(stored.store.samples_path(cell.name, task.policy, seed), cell, simulation)
    return {
        "cell": cell.name,
        "policy": task.policy,
        "seed": seed,
        **row(cell, simulation),
        **stored.origin,
        "cell_hash": cell.fingerprint,
        "knee_requests_per_s": task.knee,
        "cpu_s": round(cpu_s, 3),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


@lru_cache(maxsize=1)
def _plan(cell: Cell, knee: float | None, seed: int) -> list[Ask]:
    return make_plan(cell, knee, seed)


def _each(
    pool: ProcessPoolExecutor, act: Callable[[Any], T], tasks: Iterable[Any], jobs: int
) -> Iterator[tuple[Any, T]]:
    """(task, result) as they end; few wait in the pool, so that an interrupt ends soon."""
    coming = iter(tasks)
    running: dict[Future[T], Any] = {pool.submit(act, task): task for task in islice(coming, jobs)}
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()
            for task in islice(coming, 1):
                running[pool.submit(act, task)] = task


def git_commit() -> str:
    """The commit that runs, marked if the tree differs from it."""
    head = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return head.stdout.strip() or "unknown"


def code_hash() -> str:
    """Eight hex digits that change with any module a run may load."""
    loaded = {
        Path(module.__file__)
        for name, module in list(sys.modules.items())
        if name.startswith(("lodestar_router.", "perf.routing.")) and module.__file__
    }
    lazy = {
        path
        for package in (Path(lodestar_router.__file__).parent / "learning", Path(__file__).parent)
        for path in package.rglob("*.py")
    }
    digest = sha256()
    for path in sorted(loaded | lazy):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
