"""A router that is replaced while engines are at work."""

from functools import partial
from math import isnan
from pathlib import Path
from random import Random

import pytest

from lodestar_router.core.types import Decision, Outcome, PrefixViewKind, RoutedRequest
from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.policy.lodestar import LodestarPolicy
from perf.routing.agenda import Agenda
from perf.routing.catalog import make_policy
from perf.routing.cells import Delays, Restart, RouterRestart
from perf.routing.engine import REPLAY_S
from perf.routing.flight import Flight
from perf.routing.learner import VirtualTrainer
from perf.routing.plan import make_plan
from perf.routing.simulation import Simulation
from tests.features.models import row
from tests.perf.small import cell

AT_S = 16.0  # some models have been published by then


def replaced(
    restart: Restart, *, policy: str = "lodestar", requests_per_s: float = 15.0
) -> Simulation:
    """Not run yet."""
    small = cell(
        requests_per_s=requests_per_s,
        duration_s=22.0,
        events=[RouterRestart(at_s=AT_S, restart=restart)],
    )
    anew = partial(make_policy, policy, 1)
    return Simulation(small, make_plan(small, None, 1), anew(), 1, anew)


def learned_by(simulation: Simulation) -> LodestarPolicy:
    policy = simulation.router.policy
    assert isinstance(policy, LodestarPolicy)
    return policy


def versions_at(simulation: Simulation, *times_s: float) -> list[int]:
    """The version that is served at each of these times; 0 for none."""
    seen: list[int] = []

    def look() -> None:
        model = learned_by(simulation).model
        seen.append(0 if model is None else model.version)

    for at_s in times_s:
        simulation.call_at(at_s, look)
    simulation.run()
    return seen


@pytest.mark.parametrize("policy", ["lodestar", "lmetric"])
@pytest.mark.parametrize("requests_per_s", [15.0, 40.0])
def test_no_request_is_lost_and_no_count_stays(policy: str, requests_per_s: float) -> None:
    simulation = replaced(Restart.SAVED, policy=policy, requests_per_s=requests_per_s)
    before = simulation.router

    simulation.run()

    assert simulation.router is not before
    numbers = [flight.ask.number for flight in simulation.flights]
    assert len(numbers) == len(set(numbers)) > 300
    assert not any(isnan(f.first_token_at_s) or isnan(f.ended_at_s) for f in simulation.flights)
    for state in simulation.router.fleet:
        assert (state.inflight_requests, state.inflight_prefill_tokens) == (0, 0)
        assert state.inflight_decode_tokens == 0


def test_a_restart_repeats_exactly() -> None:
    first, second = replaced(Restart.SAVED), replaced(Restart.SAVED)
    first.run()
    second.run()

    assert [f.first_token_at_s for f in first.flights] == [
        f.first_token_at_s for f in second.flights
    ]


@pytest.mark.parametrize("restart", [Restart.SAVED, Restart.CRASH])
def test_the_model_is_the_one_that_was_served(restart: Restart) -> None:
    before, after = versions_at(replaced(restart), AT_S - 0.001, AT_S + 0.001)

    assert before > 0
    assert after == before


def test_an_empty_directory_gives_no_model() -> None:
    before, after = versions_at(replaced(Restart.EMPTY), AT_S - 0.001, AT_S + 0.001)

    assert before > 0
    assert after == 0


def test_only_a_trainer_that_is_asked_to_end_saves_its_last_rows(tmp_path: Path) -> None:
    files: dict[bool, list[str]] = {}
    for save in (False, True):
        agenda, tracker = Agenda(), ResidualTracker()
        trainer = VirtualTrainer(
            LodestarPolicy(Random(1)), tracker, 1, agenda, training_s=0.5, state_dir=tmp_path
        )
        trainer.offer(row())

        trainer.end(save=save)
        files[save] = sorted(path.name for path in tmp_path.iterdir())

    assert files == {False: ["router.lodestar"], True: ["router.lodestar", "rows.lodestar"]}


def test_requests_that_were_held_are_asked_again_and_their_clients_have_waited() -> None:
    simulation = replaced(Restart.SAVED, requests_per_s=40.0)
    assert simulation.hold is not None
    held: list[Flight] = []
    abandon = simulation.hold.abandon

    def watched() -> list[Flight]:
        held.extend(abandon())
        return held

    simulation.hold.abandon = watched  # type: ignore[method-assign]
    simulation.run()

    assert held
    assert all(f.arrived_at_s < AT_S < f.first_token_at_s for f in held)
    assert all(not isnan(f.ended_at_s) for f in held)


def test_views_are_whole_again_once_engines_have_replayed() -> None:
    quick = Delays(kv_event_delay_s=0.0, network_s=0.0, engine_overhead_s=0.0)
    small = cell(
        requests_per_s=4.0,
        duration_s=12.0,
        delays=quick,
        events=[RouterRestart(at_s=6.0, restart=Restart.EMPTY)],
    )
    kinds: dict[float, set[PrefixViewKind]] = {}
    anew = partial(make_policy, "prefix_cache_and_load", 1)
    simulation = Simulation(small, make_plan(small, None, 1), anew(), 1, anew)

    def keep(request: RoutedRequest, decision: Decision, _: Outcome) -> None:
        kinds[request.now_s] = {c.engine.prefix_view for c in decision.candidates}

    simulation.call_at(6.0, lambda: simulation.on_label(keep))
    simulation.run()

    later = [f for f in simulation.flights if f.arrived_at_s > 6.0 + REPLAY_S]
    assert sum(f.cached_tokens for f in later) > 0
    assert all(f.cached_tokens == f.expected_cached_tokens for f in later)
    for at_s, seen in kinds.items():
        whole = at_s > 6.0 + REPLAY_S
        assert seen == {PrefixViewKind.EXACT if whole else PrefixViewKind.APPROXIMATE}
