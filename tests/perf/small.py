"""Cells small enough for unit tests, runs of them, and a policy that keeps what it saw."""

from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar

import numpy as np

from lodestar_router.core.types import Candidate, Decision, RoutedRequest
from lodestar_router.policy.base import Policy
from lodestar_router.policy.baselines import LeastRequest
from perf.routing.catalog import make_policy
from perf.routing.cells import Cell, Delays, EngineGroup, Event
from perf.routing.plan import make_plan
from perf.routing.simulation import Simulation
from perf.routing.workloads.base import Ask, Workload
from perf.routing.workloads.sharing import Sharing

SHARING = Sharing(prompt_tokens=(400, 800), share=(0.5,), output_tokens=(8, 2))


def cell(
    *,
    engines: Sequence[EngineGroup] = (EngineGroup(gpu="A30", count=2),),
    workload: Workload = SHARING,
    requests_per_s: float = 8.0,
    duration_s: float = 12.0,
    warmup_s: float = 2.0,
    events: Sequence[Event] = (),
    delays: Delays | None = None,
) -> Cell:
    """Two engines, a hundred short requests."""
    return Cell(
        name="small",
        engines=tuple(engines),
        workload=workload,
        requests_per_s=requests_per_s,
        duration_s=duration_s,
        warmup_s=warmup_s,
        events=tuple(events),
        delays=delays or Delays(),
    )


def run(small: Cell, policy: str | Policy = "lmetric", seed: int = 1) -> Simulation:
    """A finished run of the cell's own plan."""
    return run_plan(small, make_plan(small, None, seed), policy, seed)


def run_plan(
    small: Cell, plan: Sequence[Ask], policy: str | Policy = "lmetric", seed: int = 1
) -> Simulation:
    """A finished run of another plan."""
    chosen = make_policy(policy, seed) if isinstance(policy, str) else policy
    simulation = Simulation(small, plan, chosen, seed)
    simulation.run()
    return simulation


def asks_at(*times_s: float, tokens: int = 640, output_tokens: int = 4) -> list[Ask]:
    """Requests with nothing in common, at these times."""
    asks = []
    for number, at_s in enumerate(times_s):
        ids = np.arange(number * 100_000, number * 100_000 + tokens, dtype=np.uint32)
        asks.append(Ask(ids, output_tokens, number, number=number, at_s=at_s))
    return asks


class Watcher:
    """Least request, with a record of what it was shown."""

    name: ClassVar[str] = "watcher"
    reads_prompt: ClassVar[bool] = True

    def __init__(self) -> None:
        self._choose = LeastRequest(Random(0)).choose
        self.seen: list[tuple[RoutedRequest, Sequence[Candidate]]] = []
        self.kv_events_known: list[int] = []
        self.simulation: Simulation | None = None

    def attach(self, simulation: Simulation) -> None:
        self.simulation = simulation

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        assert self.simulation is not None
        self.seen.append((request, candidates))
        stats = self.simulation.router.index.stats()
        self.kv_events_known.append(sum(view.events for view in stats))
        return self._choose(request, candidates)


def report_row(policy: str, seed: int, ttft_mean_s: float, cell: str = "c") -> dict[str, Any]:
    """A row of results, as far as reports read it."""
    return {
        "cell": cell, "policy": policy, "seed": seed, "requests": 10,
        "ttft_mean_s": ttft_mean_s, "ttft_p50_s": ttft_mean_s, "ttft_p90_s": ttft_mean_s,
        "ttft_p99_s": 2 * ttft_mean_s, "tpot_mean_s": 0.03, "e2e_mean_s": 4.0,
        "goodput_ratio": 0.9, "hit_ratio": 0.25,
        "per_engine_requests": {"A30-0": 6, "A30-1": 4}, "decision_us_p50": 50.0,
        "decision_us_p99": 90.0, "git_commit": "abc", "rejected": 1, "unfinished": 0,
    }  # fmt: skip
