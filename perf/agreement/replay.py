"""A recorded run again, in virtual time: the same arrivals, engines, policy and delays.

In       a Recording, a seed for the policy, delays.
Out      the fields of perf.routing.measure.row, and what the engines say of TTFT.
Cost     that of a cell of perf.routing.
Errors   ConfigError for an engine that is not known.

The seed cannot be the real run's: the router has drawn for other requests too, and
its trainer has its own clock. So a replay is made for several seeds, and their
spread tells what chance does.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lodestar_router.config.emulated import split_emulated
from lodestar_router.emulator.config import EngineModelConfig
from lodestar_router.emulator.engine_model import EngineModel
from lodestar_router.emulator.step_time import StepTime
from perf.agreement.recording import MeasuredEngine, Recording
from perf.routing.catalog import make_policy
from perf.routing.cells import Cell, Delays, EngineGroup
from perf.routing.measure import row
from perf.routing.simulation import Simulation
from perf.routing.workloads.base import Ask
from perf.routing.workloads.sharing import Sharing

# Between processes of one machine: a step's reports are in the router's views after
# two wake-ups of an event loop.
_LOCAL_REPORT_S = 0.002
_POLL_S = 0.25  # the router's own default for /metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredGroup(EngineGroup):
    """An engine with limits and step times of its own instead of a GPU profile's."""

    config: EngineModelConfig
    step_time: StepTime

    def build(self, *, kv_events: bool) -> EngineModel:
        """The engine, empty."""
        return EngineModel(replace(self.config, kv_events=kv_events), self.step_time)


def measured_group(engine: MeasuredEngine) -> MeasuredGroup:
    """The group that stands for one real engine."""
    return MeasuredGroup(
        gpu=engine.gpu,
        config=EngineModelConfig(
            num_blocks=engine.kv_blocks,
            block_size_tokens=engine.block_size_tokens,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_num_seqs=engine.max_num_seqs,
            max_model_len=engine.max_model_len,
        ),
        step_time=engine.step_time,
    )


def emulated_groups(fleet: str) -> tuple[EngineGroup, ...]:
    """The engines of `--engines emulated:...`."""
    _, groups = split_emulated(f"emulated:{fleet}")
    return tuple(EngineGroup(gpu=g.gpu, count=g.count, model=g.model) for g in groups)


def local_delays(recording: Recording) -> Delays:
    """Those of processes side by side, with the overhead that was measured.

    All of what is outside the engine's clock stands before its queue; part of it
    follows the first token, which is the same to TTFT.
    """
    return Delays(
        tokenize_s=recording.overhead.client_s,
        network_s=0.0,
        engine_overhead_s=recording.overhead.router_s,
        kv_event_delay_s=_LOCAL_REPORT_S,
        load_delay_s=_LOCAL_REPORT_S,
        load_period_s=_POLL_S if recording.load_source == "metrics" else None,
    )


def replay(recording: Recording, *, seed: int, delays: Delays) -> dict[str, Any]:
    """One run in virtual time."""
    plan = arrivals(recording)
    cell = Cell(
        name=recording.cell,
        engines=tuple(map(measured_group, recording.measured)) or emulated_groups(recording.fleet),
        workload=Sharing(),  # never asked: the plan is there
        requests_per_s=recording.requests_per_s,
        duration_s=plan[-1].at_s + 1.0,
        warmup_s=0.0,
        delays=delays,
    )
    simulation = Simulation(cell, plan, make_policy(recording.policy, seed), seed)
    simulation.run()
    outside_s = delays.tokenize_s + delays.engine_overhead_s + 2 * delays.network_s
    numbers = row(cell, simulation)
    return numbers | {"ttft_inside_mean_s": numbers["ttft_mean_s"] - outside_s}


def arrivals(recording: Recording) -> list[Ask]:
    """The plan: what was sent, when it was sent."""
    return [
        Ask(
            np.array(request.token_ids, dtype=np.uint32),
            request.output_tokens,
            answer_seed=number,
            number=number,
            at_s=request.at_s,
        )
        for number, request in enumerate(sorted(recording.requests, key=lambda r: r.at_s))
    ]
