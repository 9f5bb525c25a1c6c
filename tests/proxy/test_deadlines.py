"""What a client may ask for, within the operator's limits."""

from math import inf

import pytest

from lodestar_router.proxy.deadlines import Patience, Timeouts, patience_for
from lodestar_router.proxy.messages import Header

OPERATORS = Timeouts(connect_s=1.0, first_byte_s=600.0, idle_s=300.0, total_s=0.0)


def patience(*headers: Header, stream: bool = True, timeouts: Timeouts = OPERATORS) -> Patience:
    return patience_for(headers, timeouts, received_at_s=100.0, stream=stream)


def test_without_wishes_the_operators_limits_hold() -> None:
    given = patience((b"x-request-id", b"1"))

    assert (given.first_byte_s, given.idle_s, given.ends_at_s) == (600.0, 300.0, inf)
    assert not given.wished


@pytest.mark.parametrize(
    ("header", "stream", "first_byte_s", "idle_s", "ends_at_s"),
    [
        pytest.param((b"x-request-timeout", b"30"), True, 600, 300, 130, id="total"),
        pytest.param((b"x-request-timeout", b"1800"), False, 1800, 300, 1900, id="whole-answer"),
        pytest.param((b"x-first-byte-timeout", b"0.5"), True, 0.5, 300, inf, id="first-byte"),
        pytest.param((b"x-idle-timeout", b"7"), True, 600, 7, inf, id="idle"),
        pytest.param((b"x-request-timeout", b"1e9"), True, 600, 300, 3700, id="bounded"),
    ],
)
def test_wishes(
    header: Header, stream: bool, first_byte_s: float, idle_s: float, ends_at_s: float
) -> None:
    given = patience(header, stream=stream)

    assert (given.first_byte_s, given.idle_s) == (first_byte_s, idle_s)
    assert given.ends_at_s == ends_at_s
    assert given.wished


def test_no_limit_of_the_operator_stays_none_unless_wished() -> None:
    none = Timeouts(connect_s=0.0, first_byte_s=0.0, idle_s=0.0, total_s=0.0)

    given = patience((b"x-request-timeout", b"5"), stream=False, timeouts=none)

    assert (given.first_byte_s, given.idle_s, given.ends_at_s) == (inf, inf, 105.0)
