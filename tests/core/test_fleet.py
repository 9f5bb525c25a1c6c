"""The fleet's counts cannot drift, and its refusals say why."""

import pytest

from lodestar_router.core.fleet import Fleet
from lodestar_router.core.types import EngineId, EngineLoad, EngineSpec
from lodestar_router.errors import ModelNotFoundError, NoCandidateError

A, B = EngineId("a"), EngineId("b")


def fleet_of(*engine_ids: EngineId) -> Fleet:
    fleet = Fleet()
    for engine_id in engine_ids:
        fleet.add(EngineSpec(engine_id=engine_id, url=f"http://{engine_id}"))
        fleet.mark_up(engine_id, [{"id": "tiny"}], now_s=1.0)
    return fleet


def load(at_s: float, running: int = 0) -> EngineLoad:
    return EngineLoad(
        observed_at_s=at_s,
        source="metrics",
        num_running_reqs=running,
        num_waiting_reqs=0,
        kv_cache_usage_ratio=0.0,
    )


def test_ticket_moves_work_from_prefill_to_decode_and_gives_all_back() -> None:
    fleet = fleet_of(A)
    ticket = fleet.dispatch(A, prompt_tokens=100, cached_prefix_tokens=64)

    before = fleet.snapshot(A, 2.0)
    ticket.first_token()
    after = fleet.snapshot(A, 3.0)
    ticket.end()

    assert (before.inflight_prefill_tokens, before.inflight_decode_tokens) == (36, 0)
    assert (after.inflight_prefill_tokens, after.inflight_decode_tokens) == (0, 100)
    end = fleet.snapshot(A, 4.0)
    assert (end.inflight_requests, end.inflight_prefill_requests) == (0, 0)
    assert (end.inflight_prefill_tokens, end.inflight_decode_tokens) == (0, 0)


@pytest.mark.parametrize(
    "steps", ["end end", "first end first", "end first end", "first first end"]
)
def test_ticket_gives_back_once_whatever_is_called(steps: str) -> None:
    fleet = fleet_of(A)
    ticket = fleet.dispatch(A, prompt_tokens=10, cached_prefix_tokens=20)

    for step in steps.split():
        ticket.end() if step == "end" else ticket.first_token()

    state = fleet[A]
    assert (
        state.inflight_requests,
        state.inflight_prefill_requests,
        state.inflight_prefill_tokens,
        state.inflight_decode_tokens,
    ) == (0, 0, 0, 0)


def test_ticket_of_a_removed_engine_still_ends() -> None:
    fleet = fleet_of(A)
    ticket = fleet.dispatch(A, prompt_tokens=10, cached_prefix_tokens=0)

    fleet.remove(A)
    ticket.end()

    assert A not in fleet


def test_usable_leaves_out_down_and_excluded_engines() -> None:
    fleet = fleet_of(A, B)

    fleet.mark_down(A, "refused", 2.0)

    assert [state.spec.engine_id for state in fleet.usable("tiny", 3.0)] == [B]
    with pytest.raises(NoCandidateError) as error:
        fleet.usable("tiny", 3.0, excluded={B})
    assert error.value.rejected == {"a": "refused", "b": "failed this request"}


def test_engine_with_an_open_circuit_gets_nothing_while_another_is_there() -> None:
    fleet = fleet_of(A, B)
    fleet[A].circuit.trip("says nothing", 2.0)

    assert [state.spec.engine_id for state in fleet.usable("tiny", 3.0)] == [B]
    assert fleet.snapshot(A, 3.0).circuit == "open"
    assert fleet.why_not("tiny", {B}, set()) == {A: "circuit open: says nothing"}


def test_open_circuits_alone_refuse_no_request() -> None:
    fleet = fleet_of(A, B)
    for engine in (A, A, B):  # A is open for twice as long
        fleet[engine].circuit.trip("says nothing", 2.0)

    assert [state.spec.engine_id for state in fleet.usable("tiny", 2.5)] == [B]
    assert [s.spec.engine_id for s in fleet.usable("tiny", 2.5, excluded={B})] == [A]
    fleet.mark_down(B, "gone", 2.5)
    assert [state.spec.engine_id for state in fleet.usable("tiny", 2.5)] == [A]


def test_unknown_model_is_not_found_only_once_every_engine_has_answered() -> None:
    fleet = fleet_of(A)
    fleet.add(EngineSpec(engine_id=B, url="http://b"))

    with pytest.raises(NoCandidateError):
        fleet.usable("other", 3.0)
    fleet.mark_up(B, [{"id": "tiny"}], 2.0)

    with pytest.raises(ModelNotFoundError, match="'other'"):
        fleet.usable("other", 3.0)


def test_an_engine_that_may_serve_named_models_only_leaves_no_doubt_about_others() -> None:
    fleet = fleet_of(A)
    fleet.add(EngineSpec(engine_id=B, url="http://b", models=("big",)))

    with pytest.raises(ModelNotFoundError):
        fleet.usable("other", 3.0)
    with pytest.raises(NoCandidateError):
        fleet.usable("big", 3.0)


def test_model_of_a_down_engine_is_unavailable_not_unknown() -> None:
    fleet = fleet_of(A)

    fleet.mark_down(A, "loading", 2.0)

    with pytest.raises(NoCandidateError) as error:
        fleet.usable("tiny", 3.0)
    assert error.value.rejected == {"a": "loading"}


def test_newest_load_report_wins_and_a_down_engine_has_none() -> None:
    fleet = fleet_of(A)

    fleet.observe_load(A, load(5.0, running=5))
    fleet.observe_load(A, load(4.0, running=4))
    newest = fleet.snapshot(A, 6.0)
    fleet.mark_down(A, "gone", 7.0)

    assert newest.load is not None
    assert newest.load.num_running_reqs == 5
    assert newest.load_age_s(6.0) == 1.0
    assert fleet.snapshot(A, 8.0).load is None


def test_models_are_the_union_and_keep_all_fields() -> None:
    fleet = fleet_of(A, B)
    fleet.mark_up(B, [{"id": "tiny", "x": 2}, {"id": "big", "max_model_len": 5}], 2.0)

    assert fleet.models() == [{"id": "tiny"}, {"id": "big", "max_model_len": 5}]


def test_card_is_the_one_that_models_shows() -> None:
    fleet = fleet_of(A, B)
    fleet.mark_up(B, [{"id": "tiny", "x": 2}, {"id": "big", "parent": "tiny"}], 2.0)

    assert [fleet.card(card["id"]) for card in fleet.models()] == fleet.models()
    fleet.mark_down(B, "gone", 3.0)
    assert fleet.card("big") is None


def test_held_engine_gets_nothing_new_and_keeps_what_is_known_of_it() -> None:
    fleet = fleet_of(A, B)
    fleet.observe_load(A, load(1.0))

    fleet.hold(A, "discovery", "not ready")
    fleet.hold(A, "sleep", "sleeping")
    fleet.release(A, "discovery")

    assert [state.spec.engine_id for state in fleet.usable("tiny", 3.0)] == [B]
    with pytest.raises(NoCandidateError) as error:
        fleet.usable("tiny", 3.0, excluded={B})
    assert error.value.rejected == {"a": "sleeping", "b": "failed this request"}
    assert fleet.snapshot(A, 2.0).load is not None
    fleet.release(A, "sleep")
    assert len(fleet.usable("tiny", 3.0)) == 2


def test_holds_of_an_engine_that_left_are_ignored() -> None:
    fleet = fleet_of(A)
    fleet.remove(A)

    fleet.hold(A, "discovery", "terminating")
    fleet.release(A, "discovery")

    assert A not in fleet


def test_unknown_model_is_unavailable_while_engines_may_be_missing() -> None:
    fleet = Fleet()
    fleet.complete = False

    with pytest.raises(NoCandidateError, match="none known"):
        fleet.usable("tiny", 3.0)
    fleet.complete = True

    with pytest.raises(ModelNotFoundError):
        fleet.usable("tiny", 3.0)


def test_updated_description_leaves_counts_alone() -> None:
    fleet = fleet_of(A)
    fleet.dispatch(A, prompt_tokens=10, cached_prefix_tokens=0)

    fleet.update(EngineSpec(engine_id=A, url="http://a", gpu="A30"))

    snapshot = fleet.snapshot(A, 1.0)
    assert (snapshot.gpu, snapshot.inflight_requests) == ("A30", 1)
    assert fleet[A].up
