"""The simulation: repeatable, lossless, and no better informed than a live router."""

from dataclasses import replace
from math import isnan

import pytest

from lodestar_router.core.types import Decision, Ending, Outcome, PrefixViewKind, RoutedRequest
from perf.routing.cells import Delays, EngineGroup, Event, Slow
from perf.routing.measure import row
from perf.routing.plan import make_plan
from perf.routing.simulation import Simulation
from perf.routing.workloads.chat import Chat
from tests.perf.small import Watcher, asks_at, cell, run, run_plan

ONE_ENGINE = (EngineGroup(gpu="A30"),)
NO_DELAYS = Delays(tokenize_s=0.0, network_s=0.0, engine_overhead_s=0.0)


def numbers(simulation: Simulation) -> list[tuple[int, int, float, float, int]]:
    return [
        (f.ask.number, f.engine, f.first_token_at_s, f.ended_at_s, f.cached_tokens)
        for f in simulation.flights
    ]


@pytest.mark.parametrize("policy", ["lmetric", "random", "lodestar"])
def test_a_seed_repeats_exactly(policy: str) -> None:
    small = cell(requests_per_s=15.0)

    first, second = run(small, policy), run(small, policy)

    assert numbers(first) == numbers(second)


def test_the_learned_policy_gets_models_while_it_runs() -> None:
    simulation = run(cell(requests_per_s=15.0), "lodestar")

    assert simulation.trainer is not None
    assert simulation.trainer.rounds > 0
    assert simulation.trainer.models > 0


def test_policies_see_equal_arrivals_and_choose_for_themselves() -> None:
    small = cell()

    runs = [run(small, policy) for policy in ("random", "lmetric", "roundrobin")]

    arrivals = [
        [(f.arrived_at_s, f.ask.token_ids.tobytes(), f.ask.output_tokens) for f in r.flights]
        for r in runs
    ]
    assert arrivals[0] == arrivals[1] == arrivals[2]
    assert numbers(runs[0]) != numbers(runs[1])


@pytest.mark.parametrize("policy", ["lmetric", "least_request"])
def test_every_request_ends_and_every_count_returns_to_zero(policy: str) -> None:
    small = cell(requests_per_s=30.0)  # more than two engines can take at once

    simulation = run(small, policy)

    assert len(simulation.flights) == len(make_plan(small, None, 1))
    assert not any(isnan(flight.ended_at_s) for flight in simulation.flights)
    for state in simulation.router.fleet:
        assert (state.inflight_requests, state.inflight_prefill_tokens) == (0, 0)
        assert state.inflight_decode_tokens == 0
    assert not any(engine.flights for engine in simulation.fleet.engines)


def test_a_request_that_no_engine_can_hold_is_counted_as_rejected() -> None:
    engines = (EngineGroup(gpu="A30", kv_blocks=50),)
    small = cell(engines=engines, warmup_s=0.0)

    simulation = run_plan(small, [*asks_at(0.5, tokens=2000), *asks_at(1.0, 1.5)[1:]])

    result = row(small, simulation)
    assert (result["requests"], result["rejected"], result["finished"]) == (2, 1, 1)


def test_a_load_report_is_seen_after_its_delay_and_not_before() -> None:
    # The first prompt's one step takes about 0.1 s, its answer then 0.6 s.
    small = cell(engines=ONE_ENGINE, delays=Delays(load_delay_s=0.3))
    watcher = Watcher()

    run_plan(small, asks_at(0.0, 0.25, 0.35, 0.75, output_tokens=30), watcher)

    loads = [candidates[0].engine.load for _, candidates in watcher.seen]
    assert loads[0] is None
    assert loads[1] is None  # the report of the empty engine is still on its way
    assert [load.num_running_reqs for load in loads[2:] if load is not None] == [0, 2]
    assert all(
        load.observed_at_s <= request.now_s
        for (request, _), load in zip(watcher.seen, loads, strict=True)
        if load is not None
    )


def test_a_poll_reports_at_its_period() -> None:
    small = cell(engines=ONE_ENGINE, delays=Delays(load_period_s=0.25, load_delay_s=0.0))
    watcher = Watcher()

    run_plan(small, asks_at(0.1, 0.2, 0.3, 0.55, output_tokens=40), watcher)

    loads = [candidates[0].engine.load for _, candidates in watcher.seen]
    assert [load.observed_at_s for load in loads if load is not None] == [0.0, 0.0, 0.25, 0.5]


def test_an_idle_engine_still_sends_its_heartbeat() -> None:
    watcher = Watcher()

    run_plan(cell(engines=ONE_ENGINE), asks_at(5.0), watcher)

    (request, (candidate,)) = watcher.seen[0]
    age_s = candidate.engine.load_age_s(request.now_s)
    assert age_s is not None
    assert 0.0 <= age_s <= 0.25


def test_kv_events_arrive_after_their_delay() -> None:
    delays = Delays(kv_event_delay_s=0.5)
    watcher = Watcher()

    # One request, over at about 0.2 s: its events are known from about 0.6 s on.
    run_plan(cell(engines=ONE_ENGINE, delays=delays), asks_at(0.0, 0.4, 0.9), watcher)

    known = watcher.kv_events_known
    assert known[0] == known[1] == 0
    assert known[2] > 0


def test_expected_hits_are_those_that_engines_report_when_events_are_quick() -> None:
    delays = Delays(kv_event_delay_s=0.0, network_s=0.0, engine_overhead_s=0.0)
    small = cell(delays=delays, requests_per_s=4.0)

    simulation = run(small, "prefix_cache_and_load")

    assert sum(f.cached_tokens for f in simulation.flights) > 0
    assert all(f.cached_tokens == f.expected_cached_tokens for f in simulation.flights)


def test_without_kv_events_the_router_guesses_and_is_corrected() -> None:
    watcher = Watcher()
    small = cell(delays=Delays(kv_events=False, load_period_s=0.25))

    simulation = run(small, watcher)

    kinds = {c.engine.prefix_view for _, candidates in watcher.seen for c in candidates}
    assert kinds == {PrefixViewKind.APPROXIMATE}
    assert sum(f.expected_cached_tokens for f in simulation.flights) > 0


def test_ttft_has_every_delay_in_it() -> None:
    delays = Delays(tokenize_s=1.0, network_s=10.0, engine_overhead_s=100.0)
    plain = cell(engines=ONE_ENGINE, delays=NO_DELAYS)

    quick = run_plan(plain, asks_at(0.0)).flights[0].ttft_s
    late = run_plan(replace(plain, delays=delays), asks_at(0.0)).flights[0].ttft_s

    assert late - quick == pytest.approx(121.0)


def test_a_session_waits_for_its_answer_and_finds_it_cached() -> None:
    chat = Chat(turns=(3, 3), system_tokens=64, message_tokens=64, output_tokens=64, think_s=1.0)
    small = cell(engines=ONE_ENGINE, workload=chat, requests_per_s=1.0, duration_s=30.0)

    simulation = run(small)

    by_ask = {flight.ask: flight for flight in simulation.flights}
    followed = [(f, by_ask[f.ask.then]) for f in simulation.flights if f.ask.then in by_ask]
    assert followed
    for before, after in followed:
        assert after.arrived_at_s == pytest.approx(before.ended_at_s + after.ask.think_s)
        # All but the answer's last token was computed; hits are whole blocks of 16.
        reusable = len(before.ask.token_ids) + before.ask.output_tokens - 1
        assert after.cached_tokens == reusable // 16 * 16


def test_scaling_up_adds_empty_engines_and_down_retires_the_latest() -> None:
    events = [Event(at_s=4.0, scale_to=3), Event(at_s=8.0, scale_to=1)]
    small = cell(events=events, duration_s=12.0)

    simulation = run(small, "roundrobin")

    def engines(start_s: float, end_s: float) -> set[int]:
        return {f.engine for f in simulation.flights if start_s <= f.arrived_at_s < end_s}

    assert engines(0.0, 4.0) == {0, 1}
    assert engines(4.0, 8.0) == {0, 1, 2}
    assert engines(8.0, 12.0) == {0}


def test_a_slowed_engine_is_slower_by_the_factor() -> None:
    slow = Event(at_s=5.0, slow=Slow(engine=0, factor=3.0))
    small = cell(engines=ONE_ENGINE, events=[slow], delays=NO_DELAYS)

    before, after = run_plan(small, asks_at(0.0, 6.0)).flights

    assert after.ttft_s == pytest.approx(3.0 * before.ttft_s)


@pytest.mark.parametrize(
    ("change", "slower"),
    [
        pytest.param(("gemm_eff_c", 0.3), True, id="gemm"),
        pytest.param(("attention_prefill_eff_c", 0.1), True, id="attention"),
        pytest.param(("host_step_s", 0.01), True, id="host"),
        pytest.param(("mix", 3.0), False, id="mix-without-decodes"),
    ],
)
def test_a_changed_profile_changes_step_times(change: tuple[str, float], slower: bool) -> None:
    changed = (EngineGroup(gpu="A30", profile=(change,)),)

    (plain,), (other,) = (
        run_plan(cell(engines=engines), asks_at(0.0)).flights for engines in (ONE_ENGINE, changed)
    )

    assert (other.ttft_s > plain.ttft_s) is slower


def test_labels_come_at_the_first_token_and_at_the_end() -> None:
    class Labels(Watcher):
        def __init__(self) -> None:
            super().__init__()
            self.labels: list[tuple[str, Ending | None]] = []

        def attach(self, simulation: Simulation) -> None:
            super().attach(simulation)
            simulation.on_label(self._keep)

        def _keep(self, request: RoutedRequest, decision: Decision, outcome: Outcome) -> None:
            assert outcome.ttft_s is not None
            self.labels.append((request.request_id, outcome.ending))

    policy = Labels()

    run_plan(cell(engines=ONE_ENGINE), asks_at(0.0), policy)

    assert policy.labels == [("r0", None), ("r0", Ending.COMPLETED)]


def test_attached_policies_see_what_is_on_its_way_and_in_the_engine() -> None:
    class Truth(Watcher):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[tuple[int, int, bool]] = []

        def attach(self, simulation: Simulation) -> None:
            super().attach(simulation)
            self.engine_id = simulation.fleet.engines[0].engine_id
            for at_s in (0.005, 0.05, 3.0):
                simulation.call_at(at_s, self._look, simulation)

        def _look(self, simulation: Simulation) -> None:
            model = simulation.engine_model(self.engine_id)
            on_their_way = simulation.on_their_way(self.engine_id)
            busy = simulation.step_ends_s(self.engine_id) is not None
            self.found.append((len(on_their_way), model.num_running_reqs, busy))

    policy = Truth()

    run_plan(cell(engines=ONE_ENGINE), asks_at(0.0, 4.0), policy)

    assert policy.found == [(1, 0, False), (0, 1, True), (0, 0, False)]
