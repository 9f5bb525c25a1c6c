"""Arrivals: as many as the rate says, of the workload of the moment."""

import numpy as np
import pytest

from perf.routing.cells import Event
from perf.routing.plan import make_plan
from perf.routing.workloads.chat import Chat
from perf.routing.workloads.sharing import Sharing
from tests.perf.small import SHARING, cell

SHORT = Sharing(prompt_tokens=(50,), share=(0.0,), output_tokens=(4, 0))


def test_a_plan_has_the_rate_and_repeats_for_a_seed() -> None:
    small = cell(workload=SHORT, requests_per_s=20.0, duration_s=100.0)

    plan, again, other = (make_plan(small, None, seed) for seed in (1, 1, 2))

    times = [ask.at_s for ask in plan]
    assert len(plan) == pytest.approx(2000, rel=0.07)
    assert times == sorted(times)
    assert times[0] > 0.0
    assert times[-1] < 100.0
    assert [ask.number for ask in plan] == list(range(len(plan)))
    assert times == [ask.at_s for ask in again]
    assert times != [ask.at_s for ask in other]
    gaps = np.diff(times)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # as Poisson arrivals have


def test_rates_change_with_events_and_loads_are_of_the_knee() -> None:
    events = [Event(at_s=50.0, requests_per_s=40.0), Event(at_s=100.0, load=0.5)]
    small = cell(workload=SHORT, requests_per_s=10.0, duration_s=150.0, events=events)

    plan = make_plan(small, 40.0, 3)

    counts, _ = np.histogram([ask.at_s for ask in plan], [0, 50, 100, 150])
    assert counts.tolist() == pytest.approx([500, 2000, 1000], rel=0.15)


def test_another_workload_begins_at_its_event() -> None:
    events = [Event(at_s=6.0, workload=SHORT)]
    small = cell(workload=SHARING, events=events)

    plan = make_plan(small, None, 1)

    assert {len(ask.token_ids) > 300 for ask in plan if ask.at_s < 6.0} == {True}
    assert {len(ask.token_ids) < 100 for ask in plan if ask.at_s >= 6.0} == {True}


def test_the_rate_of_sessions_counts_turns() -> None:
    chat = Chat(turns=(2, 6), system_tokens=8, message_tokens=8, output_tokens=8)
    small = cell(workload=chat, requests_per_s=40.0, duration_s=200.0)

    plan = make_plan(small, None, 1)

    turns = sum(1 for ask in plan for _ in ask.turns())
    assert turns == pytest.approx(8000, rel=0.1)
    numbers = [turn.number for ask in plan for turn in ask.turns()]
    assert len(set(numbers)) == turns
