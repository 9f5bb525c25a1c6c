"""What a client may ask its request to be routed for."""

import pytest

from lodestar_router.core.goal import Goal, Objective
from lodestar_router.errors import RequestError
from lodestar_router.proxy.goal_headers import goal_for

DEFAULT = Goal(objective=Objective.E2E, ttft_slo_s=3.0, tpot_slo_s=0.2)
GOODPUT = Objective.GOODPUT


@pytest.mark.parametrize(
    ("headers", "goal"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"objective": "tpot"}, (Objective.TPOT, 3.0, 0.2), id="objective"),
        pytest.param({"objective": " TTFT_tail"}, (Objective.TTFT_TAIL, 3.0, 0.2), id="any-case"),
        pytest.param({"ttft-slo-ms": "250"}, (GOODPUT, 0.25, 0.2), id="a-limit-is-goodput"),
        pytest.param({"tpot-slo-ms": "12.5"}, (GOODPUT, 3.0, 0.0125), id="the-other-limit"),
        pytest.param(
            {"objective": "e2e", "ttft-slo-ms": "1"}, (Objective.E2E, 0.001, 0.2), id="both"
        ),
    ],
)
def test_wishes_and_the_operator_s_goal(
    headers: dict[str, str], goal: tuple[Objective, float, float] | None
) -> None:
    lines = [(f"x-lodestar-{name}".encode(), value.encode()) for name, value in headers.items()]

    asked = goal_for(dict([(b"host", b"x"), *lines]), DEFAULT)

    wanted = goal and Goal(objective=goal[0], ttft_slo_s=goal[1], tpot_slo_s=goal[2])
    assert asked == wanted


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("objective", "speed", "must be one of ttft, ttft_tail, e2e, tpot, goodput"),
        ("ttft-slo-ms", "soon", "must be milliseconds"),
        ("ttft-slo-ms", "0", "must be milliseconds"),
        ("tpot-slo-ms", "-5", "must be milliseconds"),
        ("tpot-slo-ms", "nan", "must be milliseconds"),
        ("tpot-slo-ms", "1e9", "must be milliseconds"),
    ],
)
def test_what_makes_no_sense_is_the_client_s_error(name: str, value: str, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        goal_for({f"x-lodestar-{name}".encode(): value.encode()}, DEFAULT)
