import math
from random import Random

import pytest

from lodestar_router.features.trust import MIN_ANSWERS, TrustGate
from tests.features.models import model

GPU = "A30"


class Served:
    """A gate and the answers it sees: ln(ttft / base) is `truth` and noise."""

    def __init__(self, seed: int = 0) -> None:
        self.said: list[str] = []
        self.gate = TrustGate(self.said.append)
        self.version = 1
        self.gate.serve(model(version=1))
        self._rng = Random(seed)

    def publish(self) -> None:
        self.version += 1
        self.gate.serve(model(version=self.version))

    def answers(self, count: int, *, useful: float, harm: float = 0.0, bias: float = 0.0) -> int:
        """How many until trust changed, all if it did not."""
        before = self.gate.trusted
        for number in range(1, count + 1):
            known = self._rng.gauss(0.0, 0.15)
            log_ratio = known + bias + self._rng.gauss(0.0, 0.1)
            g = useful * known + self._rng.gauss(0.0, harm)
            self.gate.observe(self.version, GPU, log_ratio, g)
            if self.gate.trusted is not before:
                return number
        return count


def test_a_model_that_helps_keeps_trust() -> None:
    served = Served()

    served.answers(5000, useful=1.0)

    assert served.gate.trusted
    assert served.gate.losses == 0
    live = served.gate.errors[GPU]
    assert live.error < 0.7 * live.error_base


@pytest.mark.parametrize("seed", range(20))
def test_a_useless_model_is_not_distrusted_by_chance(seed: int) -> None:
    served = Served(seed)

    assert served.answers(3000, useful=0.0) == 3000


@pytest.mark.parametrize("seed", range(5))
def test_garbage_is_distrusted_after_a_few_answers(seed: int) -> None:
    served = Served(seed)
    served.answers(500, useful=1.0)
    served.publish()

    needed = served.answers(100, useful=0.0, harm=1.5)

    assert MIN_ANSWERS <= needed <= 2 * MIN_ANSWERS
    assert not served.gate.trusted
    assert "version 2 is not trusted" in served.said[-1]


def test_the_version_after_garbage_is_on_trial_and_wins_trust_by_answers() -> None:
    served = Served()
    served.answers(500, useful=0.0, harm=1.5)
    served.publish()

    trial = served.answers(300, useful=1.0)

    assert MIN_ANSWERS <= trial < 100
    assert served.gate.trusted
    assert "version 2 is trusted again" in served.said[-1]


def test_garbage_after_garbage_is_never_used() -> None:
    served = Served()
    served.answers(100, useful=0.0, harm=1.5)

    for _ in range(10):
        served.publish()
        served.answers(60, useful=0.0, harm=1.5)

    assert not served.gate.trusted
    assert served.gate.losses == 1


def test_a_bias_common_to_all_costs_no_trust() -> None:
    """Every engine turns slow at once: the correction of recent errors takes that."""
    served = Served()
    served.answers(500, useful=1.0)

    served.answers(500, useful=1.0, bias=math.log(3.0))

    assert served.gate.trusted


def test_a_world_that_changed_takes_trust_until_the_model_has_followed() -> None:
    served = Served()
    served.answers(500, useful=1.0)

    lost = served.answers(200, useful=-1.0)
    served.publish()
    regained = served.answers(300, useful=1.0)

    assert lost < 100
    assert regained < 100


def test_answers_of_an_earlier_version_say_nothing_of_this_one() -> None:
    served = Served()
    served.publish()
    served.version = 1

    served.answers(200, useful=0.0, harm=2.0)

    assert served.gate.trusted


def test_nothing_is_judged_without_a_model_or_a_number() -> None:
    gate = TrustGate()
    gate.observe(None, GPU, 0.1, 0.0)
    gate.serve(model())

    for _ in range(100):
        gate.observe(1, GPU, math.nan, 0.0)
        gate.observe(1, GPU, 0.0, math.inf)

    assert gate.trusted
    assert not gate.errors


def test_coverage_says_whether_the_spread_is_right() -> None:
    rng, covered = Random(0), {}
    for claimed in (0.05, 0.2, 0.8):
        gate = TrustGate()
        gate.serve(model(spread={GPU: claimed}))
        for _ in range(2000):
            gate.observe(1, GPU, rng.gauss(0.0, 0.2), 0.0)
        covered[claimed] = gate.errors[GPU].covered

    assert covered[0.2] == pytest.approx(0.9, abs=0.05)
    assert covered[0.05] < 0.5
    assert covered[0.8] > 0.98
