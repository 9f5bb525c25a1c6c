"""When the loop counts as overloaded, and that the sampling sees it."""

import time

import pytest

from lodestar_router.errors import RouterBusyError
from lodestar_router.proxy.loop_lag import LoopLag
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.tasks import cancel, spawn
from tests.proxy.harness import until


def sheds(lag: LoopLag) -> bool:
    try:
        lag.check()
    except RouterBusyError:
        return True
    return False


@pytest.mark.parametrize(
    ("bound_s", "samples", "shed"),
    [
        pytest.param(0.25, [], False, id="at-start"),
        pytest.param(0.25, [0.3, 0.3, 0.3], True, id="lasting"),
        pytest.param(0.25, [0.0, 9.0, 0.0], False, id="one-long-turn"),
        pytest.param(0.25, [9.0, 9.0], False, id="not-yet"),
        pytest.param(0.25, [0.3, 0.3, 0.3, 0.1], False, id="over"),
        pytest.param(0.0, [9.0, 9.0, 9.0], False, id="never"),
    ],
)
def test_only_a_lag_that_lasts_sheds(bound_s: float, samples: list[float], shed: bool) -> None:
    lag = LoopLag(bound_s, clock=time.monotonic)

    for sample_s in samples:
        lag.sampled(sample_s)

    assert sheds(lag) is shed


async def test_a_busy_loop_is_seen_and_so_is_its_end() -> None:
    metrics = Metrics()
    lag = LoopLag(0.03, metrics=metrics, clock=time.monotonic)
    watching = spawn(lag.watch(), name="lag")

    def busy() -> bool:
        time.sleep(0.06)
        return sheds(lag)

    await until(busy)
    seen_s = metrics.registry.get_sample_value("lodestar:loop_lag_seconds")
    await until(lambda: not sheds(lag))
    await cancel(watching)

    assert seen_s is not None
    assert seen_s > 0.03
