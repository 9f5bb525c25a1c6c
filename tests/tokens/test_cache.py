"""The segment cache stays within its bytes and keeps what is used."""

from random import Random

import numpy as np

from lodestar_router.tokens.cache import SegmentCache
from lodestar_router.tokens.request import TokenIds


def ids(*values: int) -> TokenIds:
    return np.array(values, dtype=np.uint32)


def test_returns_what_was_put_and_none_for_the_rest() -> None:
    cache = SegmentCache(10_000)

    cache.put((False, "a"), ids(1, 2))

    kept = cache.get((False, "a"))
    assert kept is not None
    assert kept.tolist() == [1, 2]
    assert cache.get((True, "a")) is None


def test_never_passes_its_limit() -> None:
    rng = Random(0)
    cache = SegmentCache(20_000)

    for number in range(500):
        cache.put((False, f"{number}" * rng.randrange(1, 200)), ids(*range(rng.randrange(50))))

        assert cache.used_bytes <= 20_000

    assert 0 < len(cache) < 500


def test_forgets_what_was_not_used_for_longest() -> None:
    cache = SegmentCache(1_200)  # room for two
    cache.put((False, "a"), ids(1))
    cache.put((False, "b"), ids(2))
    cache.get((False, "a"))

    cache.put((False, "c"), ids(3))

    assert cache.get((False, "b")) is None
    assert cache.get((False, "a")) is not None


def test_a_segment_put_twice_counts_once() -> None:
    cache = SegmentCache(10_000)
    cache.put((False, "a"), ids(1))
    once = cache.used_bytes

    cache.put((False, "a"), ids(1))

    assert cache.used_bytes == once


def test_a_segment_larger_than_the_limit_evicts_nothing() -> None:
    cache = SegmentCache(1_000)
    cache.put((False, "a"), ids(1))

    cache.put((False, "x" * 2_000), ids(1))

    assert len(cache) == 1


def test_clear_frees_everything_and_repr_shows_it() -> None:
    cache = SegmentCache(1_000)
    cache.put((False, "a"), ids(1))

    cache.clear()

    assert repr(cache) == "<SegmentCache 0 segments | 0 of 1000 bytes>"
