"""Measures routers side by side: every router runs all the time, the load visits them in turn.

Ratios between routers of one repeat hold on a machine whose speed drifts; the
numbers themselves are of that machine. Routers and what they start are pinned to
one core, engines and load to another.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perf.overhead.cells import LATENCY_CELL, Cell
from perf.overhead.load import LoadReport
from perf.overhead.process_tree import cpu_s, resident_bytes
from perf.overhead.routers import Router
from tests.e2e.processes import ManagedProcess, Ports, http_ok, post_json

_START_S = 60.0
_ENGINES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure, and where."""

    directory: Path
    cells: Sequence[Cell]
    seconds: float = 6.0
    repeats: int = 3
    router_core: int = 0
    load_core: int = 1
    seed: int = 1


Row = dict[str, Any]  # of the results file: a router, a cell, a repeat, and what was measured


def measure(routers: Sequence[Router], plan: Plan, report: Callable[[Row], None]) -> None:
    """Run the plan; `report` gets each row as it is known."""
    ports = Ports(9100, 9999)
    files = {cell.name: _write_bodies(cell, plan) for cell in plan.cells}
    with ExitStack() as running:
        engines = [ports.take() for _ in range(_ENGINES)]
        for port in engines:
            running.enter_context(_engine(port, plan))
        urls = [f"http://127.0.0.1:{port}" for port in engines]
        started = [
            (router, port, running.enter_context(_started(router, port, urls, plan)))
            for router, port in ((router, ports.take()) for router in routers)
        ]
        for repeat in range(plan.repeats):
            for cell in plan.cells:
                for router, port, process in started:
                    measured = _cost(cell, files[cell.name], port, process, plan)
                    report({"router": router.name, "cell": cell.name, "repeat": repeat, **measured})
            for router, port, _ in started:
                added = _added_latency(files[LATENCY_CELL], port, engines[0], plan)
                report({"router": router.name, "cell": "latency", "repeat": repeat, **added})
        for router, _, process in started:
            megabytes = resident_bytes(_pid(process)) / 1e6
            report({"router": router.name, "cell": "memory", "resident_mb": megabytes})


def _cost(cell: Cell, bodies: Path, port: int, process: ManagedProcess, plan: Plan) -> Row:
    """CPU of the router's process tree per request, or per chunk."""
    _load(bodies, port, cell.connections, plan.seconds / 4, plan)  # warms caches and connections
    before_s = cpu_s(_pid(process))
    seen = _load(bodies, port, cell.connections, plan.seconds, plan)
    spent_s = cpu_s(_pid(process)) - before_s
    units = seen.requests * (cell.chunks if cell.per_chunk else 1)
    return {"cpu_us": 1e6 * spent_s / max(units, 1), **asdict(seen)}


def _added_latency(bodies: Path, port: int, engine_port: int, plan: Plan) -> Row:
    """One request at a time, through the router and past it in turn; milliseconds added."""
    seconds = max(plan.seconds / 4, 0.5)
    _load(bodies, port, 1, seconds, plan)
    direct = _load(bodies, engine_port, 1, seconds, plan)
    routed = _load(bodies, port, 1, seconds, plan)
    return {
        "added_p50_ms": routed.p50_ms - direct.p50_ms,
        "added_p99_ms": routed.p99_ms - direct.p99_ms,
        "errors": routed.errors,
    }


def _load(bodies: Path, port: int, connections: int, seconds: float, plan: Plan) -> LoadReport:
    command = [
        *_on_core(plan.load_core), sys.executable, "-m", "perf.overhead.load",
        str(port), str(bodies), str(connections), str(seconds),
    ]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return LoadReport(**json.loads(answer.stdout))


def _write_bodies(cell: Cell, plan: Plan) -> Path:
    file = plan.directory / f"{cell.name}.json"
    file.write_text(json.dumps([body.decode() for body in cell.bodies(plan.seed)]))
    return file


@contextmanager
def _engine(port: int, plan: Plan) -> Iterator[None]:
    command = [sys.executable, "-m", "perf.overhead.stub_engine", str(port)]
    with _pinned("engine", command, plan.load_core, plan) as process:
        process.wait_until(lambda: http_ok(f"http://127.0.0.1:{port}/health"), _START_S)
        yield


@contextmanager
def _started(
    router: Router, port: int, urls: Sequence[str], plan: Plan
) -> Iterator[ManagedProcess]:
    body = json.loads(plan.cells[0].bodies(plan.seed)[0])
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    with _pinned(router.name, router.command(port, urls), plan.router_core, plan) as process:
        process.wait_until(lambda: _answers(url, body), _START_S)
        yield process


def _answers(url: str, body: dict[str, Any]) -> bool:
    try:
        return post_json(url, {**body, "stream": False})[0] == 200
    except (OSError, ValueError):
        return False


@contextmanager
def _pinned(name: str, command: Sequence[str], core: int, plan: Plan) -> Iterator[ManagedProcess]:
    file = plan.directory / f"{name.replace(' ', '-').replace(',', '')}.log"
    process = ManagedProcess(name, [*_on_core(core), *command], env=dict(os.environ), log=file)
    process.start()
    try:
        yield process
    finally:
        process.stop()


def _on_core(core: int) -> list[str]:
    return ["taskset", "-c", str(core)]


def _pid(process: ManagedProcess) -> int:
    assert process.pid is not None
    return process.pid
