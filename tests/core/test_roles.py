"""Which leg an engine's label gives it."""

import pytest

from lodestar_router.core.fleet import EngineState, Fleet
from lodestar_router.core.roles import Roles
from lodestar_router.core.types import EngineId, EngineSpec, Leg

ROLES = Roles(prefill=("p", "both"), decode=("d", "both"))


def engine(label: str | None) -> EngineState:
    labels = {} if label is None else {"model": label}
    spec = EngineSpec(engine_id=EngineId(label or "none"), url="http://a:1", labels=labels)
    return Fleet().add(spec)


@pytest.mark.parametrize(
    ("label", "legs"),
    [
        pytest.param("p", {Leg.PREFILL}, id="prefill"),
        pytest.param("d", {Leg.DECODE}, id="decode"),
        pytest.param("both", {Leg.PREFILL, Leg.DECODE}, id="in-both-lists"),
        pytest.param("pr", set(), id="only-a-whole-label-counts"),
        pytest.param(None, set(), id="no-label"),
    ],
)
def test_legs_of_a_label(label: str | None, legs: set[Leg]) -> None:
    assert {leg for leg in Leg if ROLES.takes(engine(label), leg)} == legs


def test_those_barred_are_told_why() -> None:
    engines = [engine("p"), engine("d"), engine("both"), engine("x")]

    assert ROLES.barred(engines, Leg.DECODE) == {
        "p": "takes the prefill leg only",
        "x": "label model='x' has no role",
    }
