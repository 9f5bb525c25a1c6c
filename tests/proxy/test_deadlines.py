"""What a client may ask for, within the operator's limits."""

from math import inf

import pytest

from lodestar_router.proxy.deadlines import Patience, Patiences, Stopwatch, Timeouts
from lodestar_router.proxy.messages import Header

OPERATORS = Timeouts(connect_s=1.0, first_byte_s=600.0, idle_s=300.0, total_s=0.0)


def patience(*headers: Header, stream: bool = True, timeouts: Timeouts = OPERATORS) -> Patience:
    return Patiences(timeouts).of(dict(headers), received_at_s=100.0, stream=stream)


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


def test_the_operators_total_counts_from_the_arrival() -> None:
    given = patience(timeouts=Timeouts(connect_s=1.0, first_byte_s=0.0, idle_s=0.0, total_s=9.0))

    assert given.ends_at_s == 109.0
    assert not given.wished


def test_no_limit_of_the_operator_stays_none_unless_wished() -> None:
    none = Timeouts(connect_s=0.0, first_byte_s=0.0, idle_s=0.0, total_s=0.0)

    given = patience((b"x-request-timeout", b"5"), stream=False, timeouts=none)

    assert (given.first_byte_s, given.idle_s, given.ends_at_s) == (inf, inf, 105.0)


PATIENCE = Patience(first_byte_s=10.0, idle_s=5.0, ends_at_s=100.0, head_s=2.0)


@pytest.mark.parametrize(
    ("now_s", "answering", "in_head", "code"),
    [
        pytest.param(10.0, False, False, None, id="still-in-time"),
        pytest.param(10.1, False, False, "engine_timeout", id="first-byte"),
        pytest.param(5.1, True, False, "engine_timeout", id="idle"),
        pytest.param(3.0, False, True, None, id="head-just-seen"),
        pytest.param(101.0, True, False, "request_timeout", id="total"),
    ],
)
def test_what_takes_too_long(
    now_s: float, answering: bool, in_head: bool, code: str | None
) -> None:
    error = Stopwatch(PATIENCE, 0.0).late(now_s, answering=answering, in_head=in_head)

    assert (None if error is None else error.code) == code


def test_every_sign_starts_the_idle_time_again_and_only_that() -> None:
    watch = Stopwatch(PATIENCE, 0.0)

    for now_s in range(0, 100, 4):
        watch.heard(float(now_s))
        assert watch.late(now_s + 4.0, answering=True, in_head=False) is None

    assert watch.late(101.0, answering=True, in_head=False) is not None


def test_head_that_was_seen_and_does_not_end() -> None:
    watch = Stopwatch(PATIENCE, 0.0)
    watch.late(1.0, answering=False, in_head=True)
    watch.heard(2.9)

    error = watch.late(3.1, answering=False, in_head=True)

    assert error is not None
    assert error.cause == "protocol"


def test_client_that_reads_something_does_not_stall() -> None:
    watch = Stopwatch(PATIENCE, 0.0)

    stalls = [watch.client_stalls(4.0 * step, unsent_bytes=1000 - step) for step in range(10)]
    same = [watch.client_stalls(36.0 + step, unsent_bytes=991) for step in range(7)]

    assert not any(stalls)
    assert same == [False] * 6 + [True]
