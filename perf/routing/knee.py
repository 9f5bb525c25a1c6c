"""How much load a fleet can take: the knee, in requests per second.

    knee = the highest rate at which mean TTFT stays within KNEE_FACTOR times its
           value at light load, under the policy REFERENCE

Light load is a quarter of the summed throughput of the cell's engines, each alone
and saturated. From that sum the search goes up or down by half until it has a rate
that holds and one that does not, then bisects to 3 %. Every trial is a run of the
cell's fleet and first workload, seed 0, without events, default delays.

The reference is the comparator of the Lodestar paper. A better policy holds at a
load of 1 and more, a worse one does not.

In       a cell.
Out      requests per second; kept in a JSON file under a digest of all it depends on.
Cost     about eight runs of six virtual minutes, once per fleet and workload.
Errors   ConfigError when the engines can serve next to none of the requests.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from importlib import resources
from itertools import islice
from math import inf, sqrt
from pathlib import Path

import numpy as np

from lodestar_router.emulator.profiles import load_profile
from lodestar_router.emulator.sequence import EmulatedRequest
from lodestar_router.errors import ConfigError, RequestError
from perf.routing.catalog import make_policy
from perf.routing.cells import Cell, Delays, EngineGroup
from perf.routing.measure import measured, ttfts
from perf.routing.plan import make_plan
from perf.routing.simulation import Simulation
from perf.routing.workloads.base import Ask, Workload

REFERENCE = "prefix_cache_and_load"
KNEE_FACTOR = 5.0
_LIGHT = 0.25
_STEP = 1.5
_RESOLUTION = 1.03
TRIAL_S = 360.0
_WARMUP = 1 / 6  # of a trial
_LOOK_EVERY_S = 10.0
_ALONE_REQUESTS = 400


class KneeCache:
    """Knees by what they depend on; a file keeps them between runs."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, float] = {}
        if path is not None and path.is_file():
            self._known = json.loads(path.read_text(encoding="utf-8"))

    def known(self, cell: Cell) -> float | None:
        """The knee if it was measured before."""
        return self._known.get(knee_key(cell))

    def put(self, cell: Cell, knee: float) -> None:
        """Keep a knee."""
        self._known[knee_key(cell)] = knee
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(self._known, indent=0), encoding="utf-8")
        part.replace(self._path)


def measure(cell: Cell, trial_s: float = TRIAL_S) -> float:
    """The knee of a cell's fleet under its first workload; see the module."""
    alone = {kind: _alone(kind, cell.workload) for kind in map(_one, cell.engines)}
    rate = sum(alone[_one(group)] for group in cell.fleet)
    limit_s = KNEE_FACTOR * _mean_ttft_s(cell, _LIGHT * rate, inf, trial_s)

    def holds(requests_per_s: float) -> bool:
        return _mean_ttft_s(cell, requests_per_s, limit_s, trial_s) <= limit_s

    low, high = rate, rate * _STEP
    if holds(rate):
        while holds(high):
            low, high = high, high * _STEP
    else:
        low, high = rate / _STEP, rate
        while not holds(low):
            low, high = low / _STEP, low
    while high / low > _RESOLUTION:
        middle = sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _mean_ttft_s(cell: Cell, requests_per_s: float, limit_s: float, trial_s: float) -> float:
    """Mean TTFT of a trial; inf as soon as it is certain to pass the limit."""
    trial = Cell(
        name=cell.name,
        engines=cell.engines,
        workload=cell.workload,
        requests_per_s=requests_per_s,
        duration_s=trial_s,
        warmup_s=_WARMUP * trial_s,
        delays=Delays(),
    )
    plan = make_plan(trial, None, 0)
    simulation = Simulation(trial, plan, make_policy(REFERENCE, 0), 0)
    most = sum(1 for ask in plan for _ in ask.turns())

    def waits() -> list[float]:
        return ttfts(
            [f for f in measured(trial, simulation.flights) if not f.rejected], simulation.now_s
        )

    def look() -> None:
        if sum(waits()) > limit_s * most:
            simulation.stop()
        else:
            simulation.call_at(simulation.now_s + _LOOK_EVERY_S, look)

    look()
    simulation.run()
    found = waits()
    if not found:
        raise ConfigError(
            f"cell '{cell.name}': of {len(plan)} requests in {trial_s:.0f} s none could be served"
        )
    return sum(found) / (most if sum(found) > limit_s * most else len(found))


def _one(group: EngineGroup) -> EngineGroup:
    return replace(group, count=1)


def _alone(group: EngineGroup, workload: Workload) -> float:
    """Requests/s of one engine that is given the first requests all at once."""
    vocab_size = load_profile(group.gpu, group.model).vocab_size
    stream = _turns(workload.asks(np.random.default_rng(0), vocab_size))
    return saturated(group, list(islice(stream, _ALONE_REQUESTS)))


def saturated(group: EngineGroup, asks: Sequence[Ask]) -> float:
    """Requests/s of one engine with all of `asks` in its queue, until the last has ended."""
    engine = group.build(kv_events=False)
    added = 0
    for ask in asks:
        request = EmulatedRequest(
            request_id=str(added),
            token_ids=ask.token_ids,
            max_tokens=ask.output_tokens,
            answer_seed=ask.answer_seed,
        )
        try:
            engine.add(request)
        except RequestError:
            continue  # too long for this engine: it does not count
        added += 1
    now_s = 0.0
    while (step := engine.step(now_s)) is not None:
        now_s = step.ended_at_s
    return added / max(now_s, 1e-9)


def _turns(asks: Iterator[tuple[float, Ask]]) -> Iterator[Ask]:
    for _, ask in asks:
        yield from ask.turns()


def knee_key(cell: Cell) -> str:
    """Changes with the fleet, the workload, its trace's content, the profiles, this file."""
    fleet = [_one(group) for group in cell.fleet]
    digest = sha256(repr((fleet, cell.workload)).encode())
    profiles = resources.files("lodestar_router.emulator").joinpath("engine_profiles.json")
    digest.update(profiles.read_bytes())
    digest.update(Path(__file__).read_bytes())
    trace = getattr(cell.workload, "trace", None)
    if trace is not None:
        digest.update(trace.read_bytes())
    return digest.hexdigest()[:32]
