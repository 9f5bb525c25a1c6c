"""What an engine's KV cache holds, guessed from what this router sent there.

Block keys in order of last use, bounded by the size of the engine's cache. Blocks
of one prompt are entered so that its end is dropped before its beginning, which is
how vLLM frees them.

In       use(keys) at dispatch; correct(..) when the engine reports its hits.
Out      depth(keys); not `trusted` once the engine proves not to cache.
Cost     that of core/run_tree.py.

Correction: blocks believed held but not hit were evicted, and an engine evicts
in order of last use, so everything used no later than them is gone as well.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.run_tree import Known, RunTree

GUESSED_BOUND_BLOCKS = 8192  # 131,072 tokens in blocks of 16: an 8B model on a 32-48 GB GPU

_MISSES_BEFORE_DISTRUST = 3  # reports of no hit at all in a row; one may be chance


class ApproximateView:
    """See the module."""

    def __init__(self, bound_blocks: int = GUESSED_BOUND_BLOCKS) -> None:
        self.evicted = 0
        self._bound_blocks = bound_blocks
        self._tree = RunTree()
        self._tick = 0
        # What was believed at dispatch, while the engine may still report its hits.
        self._believed: WeakKeyDictionary[Prompt, list[Known]] = WeakKeyDictionary()
        self._misses = 0

    @property
    def blocks(self) -> int:
        """Keys believed held."""
        return len(self._tree)

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

    def depth(self, keys: Sequence[int]) -> int:
        """How many leading keys are believed held."""
        return self._tree.depth(keys)

    def use(self, prompt: Prompt, sequences: Sequence[Sequence[int]]) -> None:
        """`prompt`, with these keys per sequence, is on its way to the engine."""
        for keys in sequences:
            self._tick += 1
            known = self._tree.use(keys, self._tick)
            if len(sequences) == 1:  # a batch reports one number for all, which tells too little
                self._believed[prompt] = known
        self._shrink()

    def correct(self, prompt: Prompt, reported_blocks: int, reusable_blocks: int) -> None:
        """The engine had `reported_blocks` of the prompt's blocks in its cache.

        `reusable_blocks` is the most it could have had.
        """
        believed = self._believed.pop(prompt, [])
        expected_blocks = min(believed[-1].depth, reusable_blocks) if believed else 0
        if reported_blocks >= expected_blocks:
            self._misses = 0 if reported_blocks else self._misses
            return
        self._misses = 0 if reported_blocks else self._misses + 1
        missing = next(known for known in believed if known.depth > reported_blocks)
        self.evicted += self._tree.drop_used_until(missing.tick)

    def clear(self) -> None:
        """The engine's cache is empty: it restarted."""
        self._tree.clear()
        self._believed.clear()
        self._misses = 0

    def _shrink(self) -> None:
        surplus = len(self._tree) - self._bound_blocks
        if surplus > 0:
            self.evicted += self._tree.drop_oldest(surplus)
