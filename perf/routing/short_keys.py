"""Block keys as small numbers, for a run only: half the time of everything that looks them up.

    64-bit key -> 0, 1, 2, ... in the order in which blocks first appear

Blocks of one prompt get numbers in a row, so that looking for them walks through a
dict or set instead of jumping about in it. Everything that names blocks in virtual
time (prompts, engines, events, views) uses them; equality is all they need.

In       token ids, and the short key of the block before or the seed of a chain.
Out      short keys: a block has the same one wherever it is met.
Cost     that of core.block_keys.chained_words, 5 us, and 0.02 us per block. Memory 50 bytes
         per block that a plan's prompts and answers have.
"""

from bisect import bisect_right
from collections.abc import Sequence

from lodestar_router.core.block_keys import TokenArray, Words, chained_words
from lodestar_router.core.blocks import Prompt


class ShortKeys:
    """The numbers of one plan, in runs: stretches of a chain that were new together.

    A block follows the same block wherever it is met, so it is met within the run of
    that one, or begins a run of its own. Only where a run begins is it looked up.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []  # number -> itself, so that equal ones are one object
        self._begin: dict[int, int] = {}  # key of a run's first block -> run
        self._firsts: list[int] = []  # run -> number of its first block
        self._keys: list[Words] = []  # run -> keys

    def chain(
        self, parent: int, tokens: TokenArray, block_size_tokens: int, extras: Sequence[int] = ()
    ) -> list[int]:
        """As core.block_keys.chain_keys, from and to short keys."""
        numbers, total = self._numbers, len(self._numbers)
        run: int | None = None
        begin = 0  # where in the run the next block is, if it is met there
        if parent < total:  # else a seed, which is a number of 64 bits
            run = bisect_right(self._firsts, parent) - 1
            begin = parent - self._firsts[run] + 1
            parent = self._keys[run].item(begin - 1)
        keys = chained_words(parent, tokens, block_size_tokens, extras)
        found: list[int] = []
        while len(found) < len(keys):
            if run is None:
                run, begin = self._begin.get(keys.item(len(found))), 0
            if run is None:
                break
            first = self._firsts[run] + begin
            met = _equal_leading(self._keys[run][begin:], keys[len(found) :])
            found += numbers[first : first + met]
            run = None
        if len(found) < len(keys):
            new = keys[len(found) :].copy()
            self._begin[new.item(0)] = len(self._firsts)
            self._firsts.append(total)
            self._keys.append(new)
            numbers.extend(range(total, total + len(new)))
            found += numbers[total:]
        return found


def _equal_leading(a: Words, b: Words) -> int:
    """How many leading keys are the same in both."""
    count = min(len(a), len(b))
    equal = a[:count] == b[:count]
    return count if equal.all() else int(equal.argmin())


class OwnKeys:
    """Names of one run for blocks that only one request has: answers that are never sent back.

    Below zero, where no other key is.
    """

    def __init__(self) -> None:
        self._given = 0

    def __call__(self, count: int) -> list[int]:
        """So many more."""
        self._given += count
        return list(range(-self._given, count - self._given))


class ShortPrompt(Prompt):
    """A prompt whose blocks have short keys."""

    __slots__ = ("short",)

    def __init__(self, token_ids: Sequence[TokenArray], short: ShortKeys) -> None:
        super().__init__(token_ids)
        self.short = short

    def _chain(self, parent: int, tokens: TokenArray, block_size_tokens: int) -> list[int]:
        return self.short.chain(parent, tokens, block_size_tokens, self._extras)
