"""FreeQueue: the order in which blocks are handed out."""

import random

import pytest

from lodestar_router.emulator.free_queue import FreeQueue


def test_a_block_that_left_is_skipped_and_comes_back_at_the_end() -> None:
    queue = FreeQueue([1, 2, 3])
    queue.leave([1])
    assert (list(queue), queue.count) == ([2, 3], 2)

    queue.append([1])

    assert queue.take(3) == [2, 3, 1]
    assert queue.count == 0


def test_places_that_are_void_do_not_pile_up() -> None:
    queue = FreeQueue(range(10))

    for _ in range(1000):
        queue.leave([5])
        queue.append([5])

    assert len(queue._head) + len(queue._tail) <= 2 * 10 + 1


def test_more_than_there_is_cannot_be_taken() -> None:
    queue = FreeQueue([1, 2, 3])

    with pytest.raises(IndexError):
        queue.take(4)


@pytest.mark.parametrize("seed", range(5))
def test_random_use_agrees_with_a_plain_list(seed: int) -> None:
    rng = random.Random(seed)
    queue, naive = FreeQueue(range(12)), list(range(12))
    found: list[int] = []  # held again, with content
    handed_out: list[int] = []

    for _ in range(500):
        choice = rng.random()
        if choice < 0.35 and naive:
            found.append(naive.pop(rng.randrange(len(naive))))
            queue.leave(found[-1:])
        elif choice < 0.5:
            count = rng.randrange(len(naive) + 1)
            taken, naive = naive[:count], naive[count:]
            assert queue.take(count) == taken
            handed_out += taken
        elif choice < 0.75:
            naive += found
            queue.append(found)
            found = []
        else:
            rng.shuffle(handed_out)
            front, back = handed_out[:2], handed_out[2:]
            naive = front + naive + back
            queue.put_in_front(front)
            queue.append(back)
            handed_out = []

        assert (list(queue), queue.count) == (naive, len(naive))
