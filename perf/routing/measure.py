"""One run's numbers, and its samples for the plots.

Measured are requests that arrive in [warmup_s, duration_s). A request that never got
its first token before the run was stopped counts with the time it had waited.
`hit_ratio` is what engines found in their caches over all prompt tokens.

`goodput_ratio` is the share of them that kept both limits below.

`decision_us` is the real CPU time of a choice, matching included, and so depends on
the machine; everything else repeats exactly.
"""

from collections import Counter
from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np

from perf.routing.cells import Cell
from perf.routing.flight import Flight
from perf.routing.simulation import Simulation

# Limits that some requests of the cells miss near the knee and most keep.
TTFT_SLO_S = 1.0
TPOT_SLO_S = 0.06


def measured(cell: Cell, flights: Sequence[Flight]) -> list[Flight]:
    """Those that count, in order of arrival."""
    return [f for f in flights if cell.warmup_s <= f.arrived_at_s < cell.duration_s]


def row(cell: Cell, simulation: Simulation) -> dict[str, Any]:
    """The fields of results.jsonl that a run determines."""
    arrived = measured(cell, simulation.flights)
    flights = [flight for flight in arrived if not flight.rejected]
    ttft_s = ttfts(flights, simulation.now_s)
    ended = [flight for flight in flights if not isnan(flight.ended_at_s)]
    tpot_s = [f.tpot_s for f in ended if f.tpot_s is not None]
    prompt_tokens = sum(len(flight.ask.token_ids) for flight in flights)
    expected_tokens = sum(flight.expected_cached_tokens for flight in flights)
    decision_us = [flight.decision_ns / 1e3 for flight in flights]
    shares = Counter(flight.engine for flight in flights)
    engines = simulation.fleet.engines
    return {
        "requests": len(arrived),
        "ttft_mean_s": _mean(ttft_s),
        "ttft_p50_s": _percentile(ttft_s, 50),
        "ttft_p90_s": _percentile(ttft_s, 90),
        "ttft_p99_s": _percentile(ttft_s, 99),
        "tpot_mean_s": _mean(tpot_s),
        "e2e_mean_s": _mean([flight.e2e_s for flight in ended]),
        "goodput_ratio": _rounded(sum(map(_is_good, ended)) / max(len(arrived), 1)),
        "hit_ratio": _rounded(sum(f.cached_tokens for f in flights) / max(prompt_tokens, 1)),
        "per_engine_requests": {str(e.engine_id): shares[e.number] for e in engines},
        "decision_us_p50": _percentile(decision_us, 50),
        "decision_us_p99": _percentile(decision_us, 99),
        "rejected": len(arrived) - len(flights),
        "unfinished": len(flights) - len(ended),
        "arrivals": len(simulation.flights),
        "finished": sum(not isnan(f.ended_at_s) and not f.rejected for f in simulation.flights),
        "prompt_tokens_mean": _rounded(prompt_tokens / max(len(flights), 1)),
        "expected_hit_ratio": _rounded(expected_tokens / max(prompt_tokens, 1)),
        "preemptions": sum(engine.preemptions for engine in engines),
        "models_published": 0 if simulation.trainer is None else simulation.trainer.models,
        "virtual_s": _rounded(simulation.now_s),
    }


def _is_good(flight: Flight) -> bool:
    return flight.ttft_s <= TTFT_SLO_S and (flight.tpot_s or 0.0) <= TPOT_SLO_S


def ttfts(flights: Sequence[Flight], now_s: float) -> list[float]:
    """TTFT of each; of one without a first token, its wait until `now_s`."""
    return [
        now_s - flight.arrived_at_s if isnan(flight.first_token_at_s) else flight.ttft_s
        for flight in flights
    ]


def save_samples(path: Path, cell: Cell, simulation: Simulation) -> None:
    """Arrival, TTFT and engine of every request, warm-up included; 8 bytes each."""
    flights = [flight for flight in simulation.flights if not flight.rejected]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        arrived_at_s=np.array([f.arrived_at_s for f in flights], dtype=np.float32),
        # Three digits are enough to plot; half floats end at 65,504 s.
        ttft_s=np.array(ttfts(flights, simulation.now_s), dtype=np.float16),
        engine=np.array([f.engine for f in flights], dtype=np.uint16),
        engine_ids=np.array([str(e.engine_id) for e in simulation.fleet.engines]),
        warmup_s=np.float32(cell.warmup_s),
        duration_s=np.float32(cell.duration_s),
    )


def _mean(values: Sequence[float]) -> float | None:
    return _rounded(float(np.mean(values))) if values else None


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return _rounded(float(np.percentile(values, percent))) if values else None


def _rounded(value: float) -> float:
    """Microseconds at most: the rest is noise of floating point."""
    return nan if isnan(value) else round(value, 6)
