from dataclasses import replace
from itertools import count
from random import Random

import numpy as np
import pytest

from lodestar_router.features.serving import PublishedModel
from lodestar_router.learning.replay import ReplayBuffer
from lodestar_router.learning.rows import RowBatch
from lodestar_router.learning.succession import MIN_ROWS, Succession
from lodestar_router.learning.trainer import Trainer
from tests.features.models import layers
from tests.learning.traffic import rows


@pytest.fixture(scope="module")
def good() -> PublishedModel:
    taught, served = Trainer(0, lambda: 0.0), None
    for number in range(8):
        for each in rows(200, number, served):
            taught.add(each)
        served = taught.learn_many()[1] or served
    assert served is not None
    return served


def bad(model: PublishedModel) -> PublishedModel:
    return replace(model, version=model.version + 1, layers=layers(scale=1.0, hidden=(64, 32)))


_seeds = count(100)


def batch(served: PublishedModel, number: int = 2 * MIN_ROWS) -> RowBatch:
    buffer = ReplayBuffer(Random(0))
    for each in rows(number, next(_seeds), served):
        buffer.add(each)
    return buffer.take(buffer.recent())


def test_a_bad_version_is_beaten_by_the_good_one_before_it(good: PublishedModel) -> None:
    succession = Succession(good)
    succession.test(batch(good))
    succession.begin(bad(good))

    succession.test(batch(good))

    assert succession.before is good
    assert succession.beaten_by_before
    assert succession.beaten_by_base


def test_a_good_version_is_not_beaten(good: PublishedModel) -> None:
    succession = Succession(good)
    succession.test(batch(good))
    succession.begin(replace(good, version=99))

    for _ in range(20):
        succession.test(batch(good))

    assert not succession.beaten_by_before
    assert not succession.beaten_by_base


def test_a_few_rows_decide_nothing(good: PublishedModel) -> None:
    succession = Succession(bad(good))

    succession.test(batch(good, MIN_ROWS - 1))

    assert not succession.beaten_by_base


def test_a_version_that_proved_nothing_is_not_what_to_go_back_to(good: PublishedModel) -> None:
    succession = Succession(good)
    succession.test(batch(good))
    succession.begin(bad(good))

    succession.begin(replace(good, version=50))

    assert succession.before is good


def test_rows_before_the_publication_say_nothing_of_it(good: PublishedModel) -> None:
    succession = Succession(bad(good))
    succession.test(batch(good))
    succession.begin(replace(good, version=50))

    assert not succession.beaten_by_base


def test_an_untrusted_version_and_no_rows_are_taken(good: PublishedModel) -> None:
    succession = Succession(None)
    succession.test(batch(good))
    succession.begin(replace(good, trusted=False))
    succession.test(batch(good))

    assert not succession.beaten_by_base
    assert np.isfinite(good.scaler.std).all()
