"""Free blocks in the order in which they are handed out.

A block that is found by its content leaves the middle of the queue. It is only
noted: its place is skipped when it comes up, which keeps the rest in C. As a
block comes back at the end, of all its places the valid one is the last; one
that goes to the front has none behind, as it was handed out.

The queue is two lists, so that many blocks come and go in one slice: the head with
the next block last, and the tail, which becomes the head when that is used up.

In       block ids.
Out      block ids; none twice.
Cost     0.02 us per block; memory for at most as many void places as there are blocks.
Errors   IndexError when more is taken than there is.
"""

from collections.abc import Iterator, Sequence
from itertools import chain


class FreeQueue:
    """`count` is for reading only."""

    __slots__ = ("_blocks", "_head", "_tail", "_void", "_void_total", "count")

    def __init__(self, blocks: Sequence[int]) -> None:
        self._blocks = self.count = len(blocks)
        self._head = list(reversed(blocks))
        self._tail: list[int] = []
        self._void: dict[int, int] = {}  # block -> how many of its places do not count
        self._void_total = 0

    def __iter__(self) -> Iterator[int]:
        """Next first; not to be changed meanwhile."""
        void = dict(self._void)
        for block in chain(reversed(self._head), self._tail):
            if block in void:
                _take_one(void, block)
            else:
                yield block

    def take(self, count: int) -> list[int]:
        """Hand out the next blocks."""
        self.count -= count
        taken, void = self._places(count), self._void
        while void and not void.keys().isdisjoint(taken):
            valid = []
            for block in taken:
                if block in void:
                    _take_one(void, block)
                else:
                    valid.append(block)
            skipped = count - len(valid)
            self._void_total -= skipped
            taken = valid + self._places(skipped)
        return taken

    def _places(self, count: int) -> list[int]:
        """What the next places hold, valid or void."""
        if count > len(self._head):
            self._head = self._tail[::-1] + self._head
            self._tail = []
            if count > len(self._head):
                raise IndexError("more blocks are taken than are free")
        head = self._head
        if count == 1:
            return [head.pop()]
        start = len(head) - count
        places = head[start:]
        del head[start:]
        places.reverse()
        return places

    def leave(self, blocks: Sequence[int]) -> None:
        """Blocks are held again."""
        self.count -= len(blocks)
        void = self._void
        for block in blocks:
            void[block] = void.get(block, 0) + 1
        self._void_total += len(blocks)
        if self._void_total > self._blocks:
            self._head, self._tail = list(self)[::-1], []
            void.clear()
            self._void_total = 0

    def append(self, blocks: Sequence[int]) -> None:
        """The last of them is handed out after all others."""
        self.count += len(blocks)
        self._tail += blocks

    def put_in_front(self, blocks: Sequence[int]) -> None:
        """The first of them is the next."""
        self.count += len(blocks)
        self._head += reversed(blocks)


def _take_one(counts: dict[int, int], block: int) -> None:
    if counts[block] > 1:
        counts[block] -= 1
    else:
        del counts[block]
