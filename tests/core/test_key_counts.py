"""Counts of keys that are nearly all one."""

import random
from collections import Counter

import pytest

from lodestar_router.core.key_counts import KeyCounts


def test_a_key_is_gone_with_its_last_holder() -> None:
    counts = KeyCounts()
    counts.add([1, 2])
    counts.add([2, 3])

    assert set(counts.remove([1, 2])) == {1}
    assert set(counts.remove([2, 3])) == {2, 3}
    assert len(counts) == 0


def test_two_holders_may_leave_at_once() -> None:
    counts = KeyCounts()
    counts.add([1])
    counts.add([1])

    assert list(counts.remove([1, 1])) == [1]
    assert len(counts) == 0


def test_only_a_last_holder_takes_a_key_out() -> None:
    counts = KeyCounts()
    counts.add([1, 2])
    counts.add([2])

    assert [counts.remove_last(key) for key in (1, 2, 3)] == [True, False, False]
    assert set(counts.remove([2])) == set()
    assert counts.remove_last(2)
    assert len(counts) == 0


@pytest.mark.parametrize("seed", range(5))
def test_random_changes_agree_with_a_counter(seed: int) -> None:
    rng = random.Random(seed)
    counts, naive = KeyCounts(), Counter[int]()

    for _ in range(300):
        if rng.random() < 0.5:
            keys = rng.sample(range(12), rng.randrange(1, 6))
            counts.add(keys)
            naive.update(keys)
        elif naive:
            keys = rng.sample(sorted(naive.elements()), min(3, naive.total()))
            naive.subtract(keys)
            naive = +naive
            assert set(counts.remove(keys)) == {key for key in keys if not naive[key]}
        if rng.random() < 0.01:
            counts.clear()
            naive.clear()

        assert counts.keys == set(+naive)
