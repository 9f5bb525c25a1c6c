"""What a window forgets, and what it knows while it is young."""

import pytest

from lodestar_router.proxy.recent import Recent


def test_rate_is_that_of_the_window() -> None:
    recent = Recent(60.0, 0.0)
    for second in range(200):
        recent.arrived(float(second))
        recent.arrived(second + 0.5)

    assert recent.figures(200.0).per_s == pytest.approx(2.0, rel=0.02)


def test_young_window_is_not_divided_by_what_it_has_not_seen() -> None:
    recent = Recent(60.0, 100.0)
    for _ in range(10):
        recent.arrived(101.0)

    assert recent.figures(105.0).per_s == 2.0


def test_what_is_older_is_forgotten() -> None:
    recent = Recent(60.0, 0.0)
    recent.arrived(1.0)
    recent.ended(2.0, latency_s=1.0)
    recent.decoded(2.0, decode_s=0.5, tokens=6)

    later = recent.figures(70.0)

    assert (later.per_s, later.latency_s, later.decode_s, later.gap_s) == (0.0, None, None, None)


def test_means_are_over_what_ended() -> None:
    recent = Recent(60.0, 0.0)
    recent.ended(1.0, latency_s=1.0)
    recent.ended(2.0, latency_s=3.0)
    recent.decoded(1.0, decode_s=0.5, tokens=6)
    recent.decoded(2.0, decode_s=1.5, tokens=None)
    recent.decoded(2.0, decode_s=0.1, tokens=1)

    figures = recent.figures(3.0)

    assert figures.latency_s == 2.0
    assert figures.decode_s == pytest.approx(0.7)
    assert figures.gap_s == pytest.approx(0.1)


def test_slots_are_bounded_whatever_the_rate() -> None:
    recent = Recent(60.0, 0.0)
    for number in range(100_000):
        recent.arrived(number * 0.01)

    assert len(recent._slots) <= 60
