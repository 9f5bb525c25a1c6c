"""The ring of sessions, and what the policy does with it."""

from collections import Counter
from random import Random

import pytest

from lodestar_router.core.types import EngineId
from lodestar_router.policy import hash_ring
from lodestar_router.policy.hash_ring import HashRing
from lodestar_router.policy.kvaware import KvAware
from lodestar_router.policy.session import Session
from tests.factories import candidate, request

EIGHT = [EngineId(f"10.0.0.{number}:8000") for number in range(8)]
SIX = [engine for engine in EIGHT if engine not in ("10.0.0.2:8000", "10.0.0.5:8000")]


def owners(engines: list[EngineId], sessions: int = 4000) -> dict[str, EngineId]:
    ring = HashRing()
    return {f"s{number}": ring.engine_of(f"s{number}", engines) for number in range(sessions)}


# (session, number of its engine among eight, among the six) by uhashring 2.5 with the URLs
# http://10.0.0.N:8000, as production-stack's router asks it.
@pytest.mark.parametrize(
    ("session", "of_eight", "of_six"),
    [
        ("alice", 0, 0), ("bob", 6, 6), ("user-42", 3, 3), ("7", 3, 3), ("3f8e", 1, 1),
        ("x" * 40, 7, 7), ("ünï", 5, 3), ("session-0001", 5, 3), ("session-0002", 4, 4),
        ("zoe", 7, 7),
    ],
)  # fmt: skip
def test_session_is_where_the_other_router_has_it(session: str, of_eight: int, of_six: int) -> None:
    ring = HashRing()

    assert ring.engine_of(session, EIGHT) == f"10.0.0.{of_eight}:8000"
    assert ring.engine_of(session, SIX) == f"10.0.0.{of_six}:8000"
    assert ring.engine_of(session, EIGHT[::-1]) == f"10.0.0.{of_eight}:8000"


def test_engine_that_leaves_moves_its_own_sessions_only() -> None:
    before, after = owners(EIGHT), owners(EIGHT[1:])

    moved = {session for session in before if before[session] != after[session]}

    assert moved == {session for session in before if before[session] == EIGHT[0]}


def test_engine_that_joins_takes_sessions_and_moves_no_others() -> None:
    before, after = owners(EIGHT[1:]), owners(EIGHT)

    moved = {session for session in before if before[session] != after[session]}

    assert {after[session] for session in moved} == {EIGHT[0]}
    assert len(moved) < 2 * len(before) / 8


def test_shares_are_near_equal() -> None:
    shares = Counter(owners(EIGHT).values())

    assert max(shares.values()) < 1.3 * 4000 / 8
    assert min(shares.values()) > 0.7 * 4000 / 8


def test_memory_is_bounded_while_engines_come_and_go() -> None:
    ring = HashRing()

    for number in range(500):
        ring.engine_of("s", [EngineId(f"e{number}:1"), EngineId(f"e{number + 1}:1")])

    assert len(ring._rings) == 64


def test_sets_that_take_turns_are_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ring, one, other = HashRing(), EIGHT[:5], EIGHT[3:]
    hashed: list[str] = []
    real = hash_ring._hash

    def counted(text: str) -> int:
        hashed.append(text)
        return real(text)

    monkeypatch.setattr(hash_ring, "_hash", counted)

    for number in range(100):
        ring.engine_of(f"s{number}", one if number % 2 else other)

    assert len(hashed) == 160 * len(EIGHT) + 100


def test_session_stays_whatever_the_load() -> None:
    policy = Session(Random(0))
    idle = [candidate(engine) for engine in EIGHT]
    home = policy.choose(request(session_id="alice"), idle).engine_id
    busy = [candidate(engine, inflight_requests=50 * (engine == home)) for engine in EIGHT]

    decisions = [policy.choose(request(session_id="alice"), busy) for _ in range(5)]

    assert {decision.engine_id for decision in decisions} == {home}
    assert decisions[0].reason == "session"
    assert sorted(decisions[0].costs) == [0.0] + [1.0] * 7


def test_session_whose_engine_is_out_comes_back_to_it() -> None:
    policy = Session(Random(0))
    all_of_them = [candidate(engine) for engine in EIGHT]
    home = policy.choose(request(session_id="bob"), all_of_them).engine_id
    rest = [each for each in all_of_them if each.engine.engine_id != home]

    stand_ins = {policy.choose(request(session_id="bob"), rest).engine_id for _ in range(5)}
    back = policy.choose(request(session_id="bob"), all_of_them)

    assert len(stand_ins) == 1
    assert back.engine_id == home


@pytest.mark.parametrize("policy", [Session(Random(0)), KvAware(Random(0))])
def test_request_without_a_session_goes_to_the_fewest_requests(policy: Session | KvAware) -> None:
    candidates = [candidate("a", inflight_requests=2), candidate("b", inflight_requests=1)]

    decision = policy.choose(request(), candidates)

    assert (decision.engine_id, decision.reason) == ("b", "load")
