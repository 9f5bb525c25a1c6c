"""Who waits for an engine, and who goes first."""

from math import inf
from random import Random

import pytest

from lodestar_router.core.held import WORK_FLOOR_S, rank
from lodestar_router.core.hold import LOOKS_PER_S, MOST_LOOKED_AT, HoldQueue, HoldSettings
from lodestar_router.core.types import EngineId
from tests.core.holds import LONG, A, B, enter, held


def over(queue: HoldQueue, number: int, now_s: float, engine: EngineId = A) -> list[int]:
    """Who goes because one is over."""
    queue.over(number, now_s)
    return queue.due(engine, now_s)


def test_an_idle_engine_gets_a_request_at_once() -> None:
    queue = HoldQueue(LONG)

    assert enter(queue, held(1, 2.0))
    assert queue.holds == 0


def test_an_engine_takes_the_next_once_it_must_have_begun_the_last() -> None:
    queue = HoldQueue(LONG)

    assert enter(queue, held(1, 0.2))
    assert not enter(queue, held(2, 0.01, arrived_at_s=0.1))
    assert list(queue.waiting()) == [(A, 1)]
    assert queue.due(A, 0.2) == [2]
    assert enter(queue, held(3, 0.01, arrived_at_s=0.3))


def test_what_needs_all_but_no_prefill_goes_at_once_unless_it_must_let_another_go_first() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 9.0))
    waits = held(2, 0.9, client="c")
    waits.keys = [10, 20]  # of which nothing is cached yet
    enter(queue, waits)

    assert enter(queue, held(3, WORK_FLOOR_S))
    assert not enter(queue, held(4, WORK_FLOOR_S, client="c"))
    counts_on = held(5, WORK_FLOOR_S)
    counts_on.keys, counts_on.cached_blocks = [10, 20], 2
    assert not enter(queue, counts_on)


def test_engines_do_not_wait_for_each_other() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 2.0), A)

    assert enter(queue, held(2, 2.0), B)


def test_the_shortest_goes_first_once_the_engine_is_free() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 1.0))
    for number, work_s in ((2, 0.9), (3, 0.3), (4, 0.6)):
        assert not enter(queue, held(number, work_s))

    assert over(queue, 1, 1.0) == [3]
    assert over(queue, 3, 1.3) == [4]
    assert over(queue, 4, 1.9) == [2]
    assert queue.holds == 0


def test_who_has_waited_long_goes_before_the_shorter() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 1.0))
    enter(queue, held(2, 0.9, arrived_at_s=0.0))
    enter(queue, held(3, 0.5, arrived_at_s=4.0))

    assert rank(5.0, 0.9) > rank(1.0, 0.5)
    assert over(queue, 1, 5.0) == [2]


def test_the_next_goes_when_the_last_must_be_done() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 1.0))
    enter(queue, held(2, 1.0))

    assert queue.due_at_s(A) == pytest.approx(1.0)
    assert queue.due(A, 0.9) == []
    assert queue.due(A, 1.0) == [2]
    assert queue.due_at_s(A) == inf


def test_nobody_waits_longer_than_the_limit() -> None:
    queue = HoldQueue(HoldSettings(max_s=2.0))
    enter(queue, held(1, 100.0))
    enter(queue, held(2, 50.0, arrived_at_s=1.0))
    enter(queue, held(3, 0.1, arrived_at_s=2.5))

    assert queue.due_at_s(A) == pytest.approx(3.0)
    assert queue.due(A, 2.9) == []
    assert queue.due(A, 3.0) == [2]
    assert queue.due(A, 4.5) == [3]


def test_the_limit_is_over_when_it_said_it_would_be() -> None:
    arrived_at_s = 6.4
    assert arrived_at_s + 10.0 - arrived_at_s < 10.0  # as floats have it
    queue = HoldQueue(HoldSettings(max_s=10.0))
    enter(queue, held(1, 100.0))
    enter(queue, held(2, 50.0, arrived_at_s))

    assert queue.due(A, queue.due_at_s(A)) == [2]


def test_more_than_may_wait_are_sent() -> None:
    queue = HoldQueue(HoldSettings(max_s=10.0, max_requests=1))
    enter(queue, held(1, 5.0))

    assert not enter(queue, held(2, 1.0))
    assert enter(queue, held(3, 1.0))


def test_one_that_must_go_goes_and_counts() -> None:
    queue = HoldQueue(LONG)

    assert enter(queue, held(1, 5.0), at_once=True)
    assert enter(queue, held(2, 5.0), at_once=True)
    assert not enter(queue, held(3, 0.1))


def test_a_client_keeps_its_order() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 1.0))
    enter(queue, held(2, 0.9, client="c"))
    enter(queue, held(3, 0.4, client="c"))
    enter(queue, held(4, 0.5, client="d"))

    assert over(queue, 1, 1.0) == [4]  # the shortest is 3, whose client came with 2 before
    assert over(queue, 4, 1.5) == [2]
    assert over(queue, 2, 2.4) == [3]


def test_nobody_overtakes_the_request_whose_prefix_it_counts_on() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 1.0))
    first, second, other = held(2, 0.9), held(3, 0.3), held(4, 0.5)
    first.keys, first.cached_blocks = [10, 20, 30, 40], 1  # block 10 is cached by now
    second.keys, second.cached_blocks = [10, 20, 31, 41], 2  # 20 will be, once `first` is done
    other.keys, other.cached_blocks = [10, 21, 32], 1
    for request in (first, second, other):
        enter(queue, request)

    assert over(queue, 1, 1.0) == [4]
    assert over(queue, 4, 1.5) == [2]
    assert over(queue, 2, 2.4) == [3]


def test_who_leaves_while_waiting_is_forgotten() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 1.0))
    enter(queue, held(2, 0.5))

    assert over(queue, 2, 0.1) == []
    assert queue.holds == 0
    assert over(queue, 1, 1.0) == []
    assert over(queue, 1, 1.0) == []  # a second end is no matter
    assert over(queue, 99, 1.0) == []


def test_a_lost_engine_gives_back_all_who_wait() -> None:
    queue = HoldQueue(LONG)
    for number in (1, 2, 3):
        enter(queue, held(number, 1.0))

    assert queue.release(A) == [2, 3]
    assert queue.release(A) == []
    assert queue.release(B) == []
    assert (queue.holds, queue.due_at_s(A)) == (0, inf)


def test_those_who_would_go_later_are_not_in_the_way() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 1.0))
    enter(queue, held(2, 0.8))
    enter(queue, held(3, 0.2))

    assert queue.behind_tokens(A, 500, 0.0) == 800
    assert queue.behind_tokens(A, 100, 0.0) == 1000
    assert queue.behind_tokens(A, 2000, 0.0) == 0
    assert queue.behind_tokens(A, 100, 1e6) == 0  # they have waited too long to be overtaken
    assert queue.behind_tokens(B, 100, 0.0) == 0


def test_a_free_engine_is_offered_who_waits_for_others_the_most_pressing_first() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 9.0), A)
    longest_first = range(MOST_LOOKED_AT + 2, 1, -1)
    for number in longest_first:
        enter(queue, held(number, 0.1 * number), A)

    first = list(range(2, MOST_LOOKED_AT + 2))
    assert queue.movable(B, 1.0) == first
    assert queue.movable(B, 1.0 + 0.5 / LOOKS_PER_S) == []  # that was asked just now
    assert queue.movable(A, 2.0) == []  # it is busy
    enter(queue, held(98, 0.5, arrived_at_s=2.0), B)
    enter(queue, held(99, 0.1, arrived_at_s=2.0), B)
    assert queue.movable(B, 2.1) == []  # so is this
    assert queue.movable(B, 2.5) == first  # of its own one could go as well


def test_who_must_let_another_go_first_is_not_offered_nor_who_others_count_on() -> None:
    queue = HoldQueue(LONG)
    enter(queue, held(1, 9.0))
    first, second, other = held(2, 0.9), held(3, 0.3), held(4, 0.5, client="c")
    first.keys = second.keys = [10, 20]
    second.cached_blocks = 2  # once `first` is done
    for request in (first, second, other, held(5, 0.1, client="c")):
        enter(queue, request)

    assert queue.movable(B, 1.0) == [4]


def test_who_has_moved_stands_where_it_stood() -> None:
    queue = HoldQueue(HoldSettings(max_s=2.0))
    enter(queue, held(1, 9.0), A)
    enter(queue, held(2, 9.0), B)
    moved = held(3, 5.0, arrived_at_s=1.0)
    enter(queue, moved, A)
    enter(queue, held(4, 0.1, arrived_at_s=1.5), B)

    queue.over(3, 2.0)
    assert not queue.enter(B, moved, 2.0, at_once=False)

    assert queue.due(B, 3.0) == [3]  # first come, and its time is up
    assert queue.behind_tokens(B, 100, 3.0) == 0
    assert queue.behind_tokens(B, 50, 3.0, waited_s=9.0) == 100


@pytest.mark.parametrize("seed", range(5))
def test_everybody_goes_once_and_nothing_is_left(seed: int) -> None:
    rng = Random(seed)
    queue, now_s = HoldQueue(HoldSettings(max_s=3.0, max_requests=20)), 0.0
    gone: list[int] = []
    left: set[int] = set()
    computing: list[int] = []
    for number in range(400):
        now_s += rng.expovariate(4.0)
        engine = rng.choice((A, B))
        request = held(number, rng.uniform(0.01, 0.9), now_s, rng.choice((None, "c")))
        went = [number] if enter(queue, request, engine) else []
        if rng.random() < 0.1:
            left.add(number)
            queue.over(number, now_s)
        while computing and rng.random() < 0.6:
            queue.over(computing.pop(rng.randrange(len(computing))), now_s)
        for other in (A, B):
            went += queue.due(other, now_s)
        gone += went
        computing += went
    while computing or queue.holds:
        now_s += 0.5
        if computing:
            queue.over(computing.pop(), now_s)
        went = queue.due(A, now_s) + queue.due(B, now_s)
        gone += went
        computing += went

    assert len(gone) == len(set(gone))
    assert set(range(400)) - left <= set(gone)
    assert queue.holds == 0
    assert queue.due(A, now_s) == queue.due(B, now_s) == []
    assert list(queue.waiting()) == []
