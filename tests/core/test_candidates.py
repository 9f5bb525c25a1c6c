"""What is true of each engine for one request."""

from lodestar_router.core.candidates import as_if_new
from lodestar_router.core.types import Decision
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
