"""The pace follows how busy the router is, and never runs away."""

import pytest

from perf.soak.load import Pace


@pytest.mark.parametrize(
    ("share", "under_way", "rate"),
    [
        pytest.param(0.7, 10, 100.0, id="as-wanted"),
        pytest.param(0.66, 10, 106.06, id="a-little-more"),
        pytest.param(0.1, 10, 110.0, id="not-too-fast"),
        pytest.param(0.0, 10, 110.0, id="idle"),
        pytest.param(1.4, 10, 85.0, id="less"),
        pytest.param(0.1, 5000, 85.0, id="less-though-idle-when-nothing-comes-back"),
    ],
)
def test_the_pace_is_steered_by_the_share_of_a_core(
    share: float, under_way: int, rate: float
) -> None:
    pace = Pace(100.0)

    pace.steer(share, 0.7, under_way)

    assert pace.rate == pytest.approx(rate, rel=1e-3)
