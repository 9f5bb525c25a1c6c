"""What an engine's KV cache holds, guessed from what this router sent there.

A list of block keys in order of last use, bounded by the size of the engine's
cache. Blocks of one prompt are entered so that its end is dropped before its
beginning, which is how vLLM frees them.

In       use(keys) at dispatch; correct(..) when the engine reports its hits.
Out      one bit of the key table; kind NONE once the engine proves not to cache.
Cost     0.3 us per block. Memory about 250 bytes per block of the bound.

Correction: blocks believed held but not hit were evicted, and an engine evicts
in order of last use, so everything used no later than them is gone as well.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice, takewhile

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.key_table import KeyTable

GUESSED_BOUND_BLOCKS = 8192  # 131,072 tokens in blocks of 16: an 8B model on a 32-48 GB GPU

_REMEMBERED_PROMPTS = 4096  # dispatches whose engine may still report its hits
_MISSES_BEFORE_DISTRUST = 3  # reports of no hit at all in a row; one may be chance
_Uses = list[tuple[int, int]]  # (key, when it was last used), leading blocks of one sequence


class ApproximateView:
    """Keys by last use, the oldest first."""

    def __init__(self, table: KeyTable, bound_blocks: int = GUESSED_BOUND_BLOCKS) -> None:
        self._table = table
        self.bit = 0  # claimed at the first use: masks of few bits are the fastest
        self.evicted = 0
        self._bound_blocks = bound_blocks
        # An OrderedDict because its oldest entry is found at once; a dict scans over the dropped.
        self._last_use: OrderedDict[int, int] = OrderedDict()  # key -> tick, in order of ticks
        self._tick = 0
        self._believed: OrderedDict[Prompt, _Uses] = OrderedDict()  # at dispatch, until reported
        self._misses = 0

    @property
    def blocks(self) -> int:
        """Keys believed held."""
        return len(self._last_use)

    @property
    def trusted(self) -> bool:
        """False after reports that nothing of several believed prefixes was cached."""
        return self._misses < _MISSES_BEFORE_DISTRUST

    @property
    def bound_blocks(self) -> int:
        """Most keys to believe in."""
        return self._bound_blocks

    @bound_blocks.setter
    def bound_blocks(self, bound: int) -> None:
        self._bound_blocks = bound
        self._shrink()

    def use(self, prompt: Prompt, sequences: Sequence[Sequence[int]]) -> None:
        """`prompt`, with these keys per sequence, is on its way to the engine."""
        self.bit = self.bit or self._table.claim_bit()
        if len(sequences) == 1:  # a batch reports one number for all, which tells too little
            self._remember(prompt, sequences[0])
        for keys in sequences:
            for key in reversed(keys):
                self._tick += 1
                self._last_use.pop(key, None)  # entered anew, so that the order is by tick
                self._last_use[key] = self._tick
            self._table.set(keys, self.bit)
        self._shrink()

    def correct(self, prompt: Prompt, reported_blocks: int, reusable_blocks: int) -> None:
        """The engine had `reported_blocks` of the prompt's blocks in its cache.

        `reusable_blocks` is the most it could have had.
        """
        believed = self._believed.pop(prompt, [])[:reusable_blocks]
        missing = believed[reported_blocks:]
        if not missing:
            self._misses = 0 if reported_blocks else self._misses
            return
        self._misses = 0 if reported_blocks else self._misses + 1
        self._forget_used_until(max(tick for _, tick in missing))

    def clear(self) -> None:
        """The engine's cache is empty: it restarted."""
        self._table.clear(self._last_use.keys(), self.bit)
        self._last_use.clear()
        self._believed.clear()
        self._misses = 0

    def close(self) -> None:
        """Leave the table; the view is not used again."""
        self.clear()
        self._table.free_bit(self.bit)

    def _remember(self, prompt: Prompt, keys: Sequence[int]) -> None:
        uses: _Uses = []
        for key in keys:
            tick = self._last_use.get(key)
            if tick is None:
                break
            uses.append((key, tick))
        self._believed[prompt] = uses
        if len(self._believed) > _REMEMBERED_PROMPTS:
            self._believed.popitem(last=False)

    def _shrink(self) -> None:
        surplus = len(self._last_use) - self._bound_blocks
        if surplus > 0:
            self._drop(list(islice(self._last_use, surplus)))

    def _forget_used_until(self, tick: int) -> None:
        uses = takewhile(lambda use: use[1] <= tick, self._last_use.items())
        self._drop([key for key, _ in uses])

    def _drop(self, keys: Sequence[int]) -> None:
        for key in keys:
            del self._last_use[key]
        self._table.clear(keys, self.bit)
        self.evicted += len(keys)
