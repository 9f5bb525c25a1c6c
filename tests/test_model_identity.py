"""Engines that use one model name must mean one model."""

from typing import Any

from lodestar_router.core.fleet import Fleet
from lodestar_router.core.types import EngineId, EngineSpec
from lodestar_router.model_identity import ModelIdentity

A, B = EngineId("a"), EngineId("b")


def card(root: str, name: str = "tiny", **fields: Any) -> dict[str, Any]:
    return {"id": name, "root": root, **fields}


def fleet_with_a(*cards: dict[str, Any]) -> Fleet:
    fleet = Fleet()
    for engine_id in (A, B):
        fleet.add(EngineSpec(engine_id=engine_id, url=f"http://{engine_id}"))
    fleet.mark_up(A, cards, 0.0)
    return fleet


def test_another_root_under_the_same_name_is_refused_and_remembered() -> None:
    identity = ModelIdentity(fleet_with_a(card("/v1")), allow_mixed=False)

    assert "different models under the name 'tiny'" in (identity.check(B, [card("/v2")]) or "")
    assert list(identity.conflicts) == [B]
    assert identity.check(B, [card("/v1")]) is None
    assert identity.conflicts == {}


def test_engine_that_takes_no_requests_is_in_nobody_s_way() -> None:
    fleet = fleet_with_a(card("/v1"))
    fleet.hold(A, "discovery", "terminating")

    assert ModelIdentity(fleet, allow_mixed=False).check(B, [card("/v2")]) is None


def test_adapters_of_different_versions_may_be_rolled_out() -> None:
    old = [card("/base"), card("/lora/v1", "sql", parent="tiny")]
    new = [card("/base"), card("/lora/v2", "sql", parent="tiny")]

    assert ModelIdentity(fleet_with_a(*old), allow_mixed=False).check(B, new) is None


def test_engine_that_left_is_forgotten() -> None:
    identity = ModelIdentity(fleet_with_a(card("/v1")), allow_mixed=False)
    identity.check(B, [card("/v2")])

    identity.forget(B)

    assert identity.conflicts == {}
