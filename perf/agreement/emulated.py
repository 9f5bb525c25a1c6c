"""The router on emulated engines, as its users start it, under a load of `vllm bench serve`.

In       a cell of CELLS, a policy, a seed.
Out      a Recording.
Cost     the cell's duration and about a minute.
Errors   ProcessDiedError when the router does not come up; see measure.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lodestar_router.config.model import EMULATED_MODEL
from lodestar_router.emulator.server_tokenizer import builtin_tokenizer
from perf.agreement.measure import get, measure
from perf.agreement.recording import Recording
from perf.agreement.replay import emulated_groups
from perf.routing.cells import Cell
from perf.routing.knee import measure as measure_knee
from perf.routing.workloads.sharing import Sharing
from perf.serving.vllm_bench import VllmBench
from tests.e2e.processes import ManagedProcess, Ports, http_ok

_START_S = 60.0
_PORTS = (8250, 8299)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedCell:
    """A fleet, a data set of the tool, a rate."""

    fleet: str
    dataset: str
    options: Mapping[str, int | float]
    prompts: int
    requests_per_s: float
    alike: Sharing  # the workload of perf.routing with such prompts: its knee is the load's 1.0


CELLS: Final[Mapping[str, EmulatedCell]] = {
    "2xA30-random": EmulatedCell(
        fleet="2xA30",
        dataset="random",
        options={"random-input-len": 1024, "random-range-ratio": 0.5, "random-output-len": 128},
        prompts=780,
        requests_per_s=5.2,
        alike=Sharing(
            prompt_tokens=(640.0, 1024.0, 1408.0), share=(0.0,), requests_per_prefix=(1, 1),
            reuse_distance=None, output_tokens=(128, 37), prefixes_per_class=100,
        ),
    ),
    "2xA30+2xV100-prefix": EmulatedCell(
        fleet="2xA30,2xV100",
        dataset="prefix_repetition",
        options={
            "prefix-repetition-prefix-len": 1024,
            "prefix-repetition-suffix-len": 512,
            "prefix-repetition-num-prefixes": 60,
            "prefix-repetition-output-len": 128,
        },
        prompts=1260,
        requests_per_s=8.4,
        alike=Sharing(
            prompt_tokens=(1536.0,), share=(2 / 3,), requests_per_prefix=(21, 21),
            reuse_distance=None, output_tokens=(128, 1), prefixes_per_class=60,
        ),
    ),
}  # fmt: skip


def record(name: str, *, policy: str, seed: int, vllm_python: Path, directory: Path) -> Recording:
    """One run of a cell."""
    cell = CELLS[name]
    bench = VllmBench(
        python=vllm_python,
        tokenizer=builtin_tokenizer(),
        dataset=cell.dataset,
        prompts=cell.prompts,
        per_s=cell.requests_per_s,
        options=cell.options,
    )
    with router(cell.fleet, policy, seed, directory / "router.log") as url:
        run = measure(bench, url, EMULATED_MODEL, seed=seed, directory=directory)
    return Recording(
        cell=name,
        fleet=cell.fleet,
        policy=policy,
        seed=seed,
        requests_per_s=cell.requests_per_s,
        load=cell.requests_per_s / knee(cell),
        requests=run.requests,
        engines=run.engines,
        overhead=run.overhead,
        load_source=run.load_source,
        busy_before=run.busy_before,
    )


def knee(cell: EmulatedCell) -> float:
    """Requests per second, see perf.routing.knee; some 15 seconds of computing."""
    return measure_knee(
        Cell(
            name=cell.fleet,
            engines=emulated_groups(cell.fleet),
            workload=cell.alike,
            requests_per_s=cell.requests_per_s,
        )
    )


@contextmanager
def router(fleet: str, policy: str, seed: int, log: Path) -> Iterator[str]:
    """The URL of a router whose engines are up and whose views of them are complete."""
    port = Ports(*_PORTS).take()
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "lodestar_router",
        "--engines", f"emulated:{fleet}",
        "--routing-logic", policy,
        "--seed", str(seed),
        "--host", "127.0.0.1",
        "--port", str(port),
    ]  # fmt: skip
    process = ManagedProcess("router", command, env=dict(os.environ), log=log)
    try:
        process.start()
        process.wait_until(lambda: http_ok(f"{url}/health"), _START_S)
        process.wait_until(lambda: _complete(get(url, "/engines"), fleet), _START_S)
        yield url
    finally:
        process.stop()


def _complete(engines: Sequence[Mapping[str, Any]], fleet: str) -> bool:
    """All are up and loads known; of those with a prefix cache every event is seen."""
    caching = sum(
        group.count
        for group in emulated_groups(fleet)
        if group.build(kv_events=True).config.prefix_caching
    )
    exact = sum(engine["prefix_view"] == "exact" for engine in engines)
    return exact == caching and all(e["up"] and e["load"] is not None for e in engines)
