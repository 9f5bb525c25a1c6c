"""The segment cache stays within its bytes and keeps what is used."""

from random import Random

from lodestar_router.tokens.cache import Ids, Key, SegmentCache

ROOM_FOR_TWO = 700  # bytes of a generation; a short segment takes about 310


def get(cache: SegmentCache, key: Key) -> Ids | None:
    return cache.get_all([key])[0]


def test_returns_what_was_put_and_none_for_the_rest() -> None:
    cache = SegmentCache(10_000)

    cache.put("a", b"ids.")

    assert cache.get_all(["a", "b", ("a",), "a"]) == [b"ids.", None, None, b"ids."]


def test_never_passes_its_limit() -> None:
    rng = Random(0)
    cache = SegmentCache(20_000)

    for number in range(500):
        cache.put(f"{number}" * rng.randrange(1, 200), bytes(4 * rng.randrange(50)))
        cache.get_all([f"{rng.randrange(500)}"])

        assert cache.used_bytes <= 20_000

    assert 0 < len(cache) < 500


def test_what_is_used_is_kept_and_what_is_not_is_forgotten() -> None:
    cache = SegmentCache(2 * ROOM_FOR_TWO)
    cache.put("used", b"1111")
    cache.put("unused", b"2222")

    for number in range(20):
        cache.put(f"new {number}", b"3333")
        get(cache, "used")

    assert get(cache, "used") == b"1111"
    assert get(cache, "unused") is None
    assert get(cache, "new 0") is None
    assert get(cache, "new 19") == b"3333"


def test_a_segment_asked_for_twice_at_once_is_found_twice() -> None:
    cache = SegmentCache(2 * ROOM_FOR_TWO)
    cache.put("a", b"1111")
    for number in range(3):
        cache.put(f"new {number}", b"3333")  # "a" is of the old generation now

    assert cache.get_all(["a", "a"]) == [b"1111", b"1111"]


def test_a_segment_put_twice_counts_once() -> None:
    cache = SegmentCache(10_000)
    cache.put("a", b"1111")
    once = cache.used_bytes

    cache.put("a", b"1111")

    assert cache.used_bytes == once


def test_a_segment_larger_than_a_generation_evicts_nothing() -> None:
    cache = SegmentCache(1_000)
    cache.put("a", b"1111")

    cache.put("x" * 2_000, b"1111")

    assert len(cache) == 1


def test_pinned_segments_are_known_whatever_else_is_put() -> None:
    cache = SegmentCache(2 * ROOM_FOR_TWO)
    cache.clear({"pinned": b"7777"})

    for number in range(20):
        cache.put(f"new {number}", b"3333")
        assert get(cache, "pinned") == b"7777"

    assert cache.used_bytes <= 2 * ROOM_FOR_TWO


def test_clear_frees_everything_and_repr_shows_it() -> None:
    cache = SegmentCache(1_000)
    cache.put("a", b"1111")

    cache.clear()

    assert repr(cache) == "<SegmentCache 0 segments | 0 of 1000 bytes>"
