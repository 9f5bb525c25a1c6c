"""Sequences that compute one token per step, moved forward together.

    computed_tokens = offset_tokens + steps

A step raises `steps`, and with it every member's progress. What a step has to
do for single members falls on known steps: a member needs a block when its
computed tokens are a multiple of the block size, fills it with its last token,
and ends at a known length. So members stand in buckets by phase and by last
step, and a step looks at its own buckets only.

In       sequences past their prefill.
Out      those that need a block, fill a block, or end at the next step.
Cost     O(members / block size) per step.
Errors   none; adding twice or removing a stranger is the caller's mistake (KeyError).

No clock.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lodestar_router.emulator.sequence import Sequence


class DecodeSet:
    """The decoding sequences of one engine."""

    __slots__ = ("_endings", "_phases", "_size", "count", "offset_sum", "steps")

    def __init__(self, block_size_tokens: int) -> None:
        self._size = block_size_tokens
        # dicts as ordered sets: removal must not search
        self._phases: list[dict[Sequence, None]] = [{} for _ in range(block_size_tokens)]
        self._endings: dict[int, dict[Sequence, None]] = {}
        self.steps = 0  # decode steps of this engine so far
        self.count = 0
        self.offset_sum = 0

    @property
    def kv_tokens(self) -> int:
        """Sum of the members' computed tokens."""
        return self.offset_sum + self.count * self.steps

    def add(self, sequence: "Sequence") -> None:
        """A member from the next step on; `offset_tokens` holds its computed tokens."""
        offset = sequence.offset_tokens = sequence.offset_tokens - self.steps
        sequence.decoding = self
        self.count += 1
        self.offset_sum += offset
        self._phases[-offset % self._size][sequence] = None
        # The last token is never computed: it is out when all before it are.
        last_step = sequence.end_tokens - 1 - offset
        self._endings.setdefault(last_step, {})[sequence] = None

    def remove(self, sequence: "Sequence") -> None:
        """Leave, with `offset_tokens` and `total_tokens` telling the progress made."""
        offset = sequence.offset_tokens
        self.count -= 1
        self.offset_sum -= offset
        del self._phases[-offset % self._size][sequence]
        last_step = sequence.end_tokens - 1 - offset
        endings = self._endings[last_step]
        del endings[sequence]
        if not endings:
            del self._endings[last_step]
        sequence.offset_tokens += self.steps
        sequence.total_tokens = sequence.offset_tokens + 1
        sequence.decoding = None

    def needing_block(self) -> "dict[Sequence, None]":
        """Members whose next token starts a block; not to be changed."""
        return self._phases[self.steps % self._size]

    def filling_block(self) -> "dict[Sequence, None]":
        """Members whose next token completes a block; not to be changed."""
        return self._phases[(self.steps + 1) % self._size]

    def advance(self) -> "list[Sequence]":
        """One step for every member; those that made their last token leave."""
        self.steps += 1
        ended = self._endings.get(self.steps)
        if ended is None:
            return []
        leaving = list(ended)
        for sequence in leaving:
            self.remove(sequence)
        return leaving
