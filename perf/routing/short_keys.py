"""Block keys as small numbers, for a run only: half the time of everything that looks them up.

    64-bit key -> 0, 1, 2, ... in the order in which blocks first appear

Blocks of one prompt get numbers in a row, so that looking for them walks through a
dict or set instead of jumping about in it. Everything that names blocks in virtual
time (prompts, engines, events, views) uses them; equality is all they need.

In       token ids, and the short key of the block before or the seed of a chain.
Out      short keys: a block has the same one wherever it is met.
Cost     0.05 us per block more than core.block_keys.chain_keys. Memory 100 bytes per
         block that a plan's prompts and answers have.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence

from lodestar_router.core.block_keys import TokenArray, chain_keys
from lodestar_router.core.blocks import Prompt


class ShortKeys:
    """The numbers of one plan."""

    def __init__(self) -> None:
        self._names: dict[int, int] = {}
        self._keys = array("Q")  # number -> key

    def chain(
        self, parent: int, tokens: TokenArray, block_size_tokens: int, extras: Sequence[int] = ()
    ) -> list[int]:
        """As core.block_keys.chain_keys, from and to short keys."""
        names = self._names
        if parent < len(names):  # else a seed, which is a number of 64 bits
            parent = self._keys[parent]
        keys = chain_keys(parent, tokens, block_size_tokens, extras)
        # A block was met before only if all before it were: the new ones are the last.
        met = bisect_left(keys, True, key=lambda key: key not in names)
        new = range(len(names), len(names) + len(keys) - met)
        if new:
            late = keys[met:]
            self._keys.extend(late)
            names.update(zip(late, new, strict=True))
        return [*map(names.__getitem__, keys[:met]), *new]


class ShortPrompt(Prompt):
    """A prompt whose blocks have short keys."""

    __slots__ = ("short",)

    def __init__(self, token_ids: Sequence[TokenArray], short: ShortKeys) -> None:
        super().__init__(token_ids)
        self.short = short

    def _chain(self, parent: int, tokens: TokenArray, block_size_tokens: int) -> list[int]:
        return self.short.chain(parent, tokens, block_size_tokens, self._extras)
