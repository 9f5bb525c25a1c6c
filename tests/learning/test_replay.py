from random import Random

import pytest

from lodestar_router.learning.replay import ReplayBuffer
from tests.features.models import row


def filled(count: int, window: int, reservoir: int) -> ReplayBuffer:
    buffer = ReplayBuffer(Random(0), window, reservoir)
    for number in range(count):
        buffer.add(row(work_tokens=number))
    return buffer


def test_memory_is_bounded() -> None:
    assert len(filled(1000, window=10, reservoir=20)) == 30


def test_the_window_holds_the_newest_in_order() -> None:
    buffer = filled(100, window=10, reservoir=20)

    recent = buffer.take(buffer.recent())

    assert recent.work_tokens.tolist() == list(range(90, 100))
    assert recent.gpus == ("A30",)


def test_the_reservoir_samples_all_that_left_the_window() -> None:
    buffer = filled(4000, window=100, reservoir=500)

    older = buffer.take(buffer.older()).work_tokens

    assert len(set(older.tolist())) == 500
    assert older.max() < 3900
    assert older.mean() == pytest.approx(3900 / 2, rel=0.1)


def test_bounds_are_not_offered_as_labels() -> None:
    buffer = ReplayBuffer(Random(0), window_rows=3, reservoir_rows=3)
    for number in range(6):
        buffer.add(row(work_tokens=number, censored=number % 2 == 0))

    assert len(buffer) == 6
    assert buffer.take(buffer.recent()).work_tokens.tolist() == [3, 5]
    assert buffer.take(buffer.older()).work_tokens.tolist() == [1]
