"""One number follows a quantile, whatever the scale, and its changes."""

import math
from random import Random

import pytest

from lodestar_router.policy.running_quantile import RunningQuantile


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_share_above_is_the_one_asked_for(scale: float) -> None:
    rng, quantile = Random(2), RunningQuantile(0.05)
    above = 0
    for number in range(5000):
        x = scale * rng.lognormvariate(0.0, 0.5)
        above += number >= 1000 and x > (quantile.value or 0.0)
        quantile.add(x)

    assert above / 4000 == pytest.approx(0.05, abs=0.01)
    assert quantile.value == pytest.approx(scale * math.exp(1.645 * 0.5), rel=0.3)


def test_a_change_of_level_is_followed() -> None:
    quantile = RunningQuantile(0.1)
    for level in (1.0, 20.0):
        for _ in range(1500):
            quantile.add(level)

        assert quantile.value == pytest.approx(level, rel=0.1)


def test_the_first_number_is_the_beginning_and_rubbish_is_ignored() -> None:
    quantile = RunningQuantile(0.05)
    assert quantile.value is None

    for number in (math.nan, math.inf, 0.0, -1.0, 0.5):
        quantile.add(number)

    assert quantile.value == pytest.approx(0.5)
