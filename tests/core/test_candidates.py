"""What is true of each engine for one request."""

from lodestar_router.core.candidates import as_if_new, candidates_for
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.held import Held
from lodestar_router.core.hold import HoldQueue, HoldSettings
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import Decision, EngineId, EngineSpec
from tests.factories import candidate, request


def test_a_request_is_not_in_its_own_way() -> None:
    given = candidate("a", cached_prefix_tokens=200)
    decision = Decision(policy="p", candidates=[given], chosen=0, costs=[0.0], reason="only")
    now = [
        candidate(
            "a",
            cached_prefix_tokens=999,  # its own blocks count
            inflight_requests=3,
            inflight_prefill_requests=2,
            inflight_prefill_tokens=1500,
        ),
        candidate("b", cached_prefix_tokens=100, inflight_requests=1),
    ]
    other = now[1]

    as_if_new(now, request(prompt_tokens=1000), decision)

    own = now[0].engine
    assert now[0].cached_prefix_tokens == 200
    assert (own.inflight_requests, own.inflight_prefill_requests) == (2, 1)
    assert own.inflight_prefill_tokens == 700
    assert now[1] is other


def test_an_engine_is_seen_with_what_is_computed_and_without_who_would_go_later() -> None:
    engine_id = EngineId("a")
    index, hold = PrefixIndex(), HoldQueue(HoldSettings(max_s=10.0))
    fleet = Fleet(prefix_view=index.kind, log_residual=lambda _engine_id, _now_s: 0.0)
    fleet.add(EngineSpec(engine_id=engine_id, url="http://a"))
    index.add_engine(engine_id)
    for number, tokens in enumerate((2000, 4000)):  # the first goes, the second waits
        fleet.dispatch(engine_id, prompt_tokens=tokens, cached_prefix_tokens=0)
        held = Held(
            number=number,
            arrived_at_s=0.0,
            work_s=tokens / 1000,
            uncached_tokens=tokens,
            client=None,
        )
        hold.enter(engine_id, held, 0.0, at_once=False)
    short = request(prompt_tokens=1000, now_s=0.5)

    (seen,) = candidates_for(short, None, [engine_id], fleet=fleet, index=index, hold=hold)
    (unheld,) = candidates_for(short, None, [engine_id], fleet=fleet, index=index)

    assert seen.engine.inflight_prefill_tokens == 2000
    assert seen.engine.inflight_computed_tokens == 500
    assert unheld.engine.inflight_prefill_tokens == 6000
    assert unheld.engine.inflight_computed_tokens == 0
