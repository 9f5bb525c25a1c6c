"""All arrivals of a cell and a seed, before any policy is asked.

    arrivals in (t, t + dt) = rate(t) dt, with the workload of the moment

In       a cell, its rates in requests per second, a seed.
Out      asks in order of time; of sessions the first turn, the others hang on it.
Cost     about 50 us per request.

The plan is made once and served to every policy: they see equal arrivals, except
that a later turn of a session waits for the answer before it.
"""

from itertools import pairwise

import numpy as np

from lodestar_router.emulator.profiles import load_profile
from perf.routing.cells import Cell
from perf.routing.short_keys import ShortKeys, ShortPrompt
from perf.routing.workloads.base import Ask, Workload


def make_plan(cell: Cell, knee_requests_per_s: float | None, seed: int) -> list[Ask]:
    """Every ask with `at_s` and `number` set."""
    vocab_size = load_profile(cell.engines[0].gpu, cell.model).vocab_size
    plan: list[Ask] = []
    for number, (workload, rates, until_s) in enumerate(_segments(cell, knee_requests_per_s)):
        rng = np.random.default_rng([seed, number])
        _fill(plan, workload, rates, until_s, rng, vocab_size)
    turns = [turn for ask in plan for turn in ask.turns()]
    short = ShortKeys()
    for number, turn in enumerate(turns):
        turn.number = number
        turn.prompt = ShortPrompt([turn.token_ids], short)
    return plan


_Rates = list[tuple[float, float]]  # (from when, requests per second), in order


def _segments(cell: Cell, knee: float | None) -> list[tuple[Workload, _Rates, float]]:
    """(workload, its rates, its end): one entry per workload that follows another."""
    segments: list[tuple[Workload, _Rates, float]] = []
    rate = _rate(cell.requests_per_s, cell.load, knee)
    workload, rates = cell.workload, [(0.0, rate)]
    for event in cell.events:
        at_s = min(event.at_s, cell.duration_s)
        if event.requests_per_s is not None or event.load is not None:
            rate = _rate(event.requests_per_s, event.load, knee)
            rates.append((at_s, rate))
        if event.workload is not None:
            segments.append((workload, rates, at_s))
            workload, rates = event.workload, [(at_s, rate)]
    return [*segments, (workload, rates, cell.duration_s)]


def _rate(requests_per_s: float | None, load: float | None, knee: float | None) -> float:
    if requests_per_s is not None:
        return requests_per_s
    assert load is not None
    assert knee is not None, "a load needs the knee"
    return load * knee


def _fill(
    plan: list[Ask],
    workload: Workload,
    rates: _Rates,
    until_s: float,
    rng: np.random.Generator,
    vocab_size: int,
) -> None:
    """Append the asks of one segment."""
    asks = workload.asks(rng, vocab_size)
    due, ask = next(asks)  # `due` is in mean request intervals since the segment began
    passed = 0.0  # of them, before the current step
    for (begin_s, rate), (end_s, _) in pairwise([*rates, (until_s, 0.0)]):
        end = passed + (end_s - begin_s) * rate
        while due < end:
            ask.at_s = begin_s + (due - passed) / rate
            plan.append(ask)
            gap, ask = next(asks)
            due += gap
        passed = end
