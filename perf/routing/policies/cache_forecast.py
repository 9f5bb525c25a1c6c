"""The KV pool of an engine as it would become: counts of free blocks, and what they keep.

The engine's own pool stays as it is; this holds the differences. Free blocks are
handed out least recently used first, so a cached block that nobody holds is lost
when as many blocks have been handed out as stood before it in the queue:

    lost at `taken` = its place in the pool's queue now, or
                      taken + free blocks at its release, for one released later

In       a BlockPool, left untouched; tokens and keys of requests.
Out      free blocks, cached prefixes.
Cost     about 0.1 us per block that a request holds.
Errors   none; a taker checks `free` first.

Approximate in one thing: blocks that leave the middle of the queue, because a
request finds them cached, let those behind them be lost a little earlier than
is counted here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lodestar_router.emulator.block_pool import BlockPool


@dataclass(slots=True, eq=False)
class Holding:
    """The blocks of one request: first the pool's, then such as the forecast made."""

    keys: Sequence[int]  # of its full blocks, in order
    blocks: list[int] = field(default_factory=list)  # the pool's
    keyed: int = 0  # blocks of all kinds that can be found by key
    total: int = 0  # blocks of all kinds


class CacheForecast:
    """Differences to one pool."""

    def __init__(self, pool: BlockPool, block_size_tokens: int, *, caching: bool) -> None:
        self._held, self._queue = pool.references, pool.free_queue()
        self._lookup = pool.lookup
        self._size = block_size_tokens
        self._caching = caching
        self.free = pool.free_count
        self._taken = 0
        self._gone: set[int] = set()  # blocks at the head of the queue, as far as handed out
        self._references: dict[int, int] = {}  # block -> difference
        self._lost_at: dict[int, int] = {}  # block released in the forecast -> `taken`
        # Blocks that exist in the forecast only, by key: who holds them, when they are lost.
        self._made: dict[int, int] = {}
        self._made_lost_at: dict[int, int] = {}

    def take(self, blocks: int) -> None:
        """Hand out blocks."""
        self.free -= blocks
        self._taken += blocks

    def find(self, keys: Sequence[int], limit: int) -> tuple[list[int], int]:
        """The longest cached run of the first `limit` keys: (blocks of the pool, length)."""
        if not self._caching:
            return [], 0
        real = self._lookup(keys, limit)
        for index, block in enumerate(real):
            if self._is_lost(block):
                del real[index:]
                break
        found, limit = len(real), min(limit, len(keys))
        while found < limit and self._is_made(keys[found]):
            found += 1
        return real, found

    def idle(self, keys: Sequence[int], real: Sequence[int], found: int) -> int:
        """How many of the blocks that `find` gave nobody holds: taking them costs free ones."""
        held, changes, made = self._held, self._references, self._made
        idle = sum(not held[block] + changes.get(block, 0) for block in real)
        return idle + sum(not made[key] for key in keys[len(real) : found])

    def share(self, holding: Holding, real: list[int], found: int) -> None:
        """Hold the blocks that `find` gave."""
        self.free -= self.idle(holding.keys, real, found)
        for block in real:
            self._references[block] = self._references.get(block, 0) + 1
        for key in holding.keys[len(real) : found]:
            self._made[key] += 1
        holding.blocks, holding.keyed, holding.total = real, found, found

    def extend(self, holding: Holding, reach_tokens: int) -> None:
        """Hold the blocks for `reach_tokens` of a prompt, and let them be found."""
        total = -(-reach_tokens // self._size)
        self.take(total - holding.total)
        holding.total = total
        if not self._caching:
            return
        upto = min(reach_tokens // self._size, len(holding.keys))
        if upto > holding.keyed:
            self._made.update(dict.fromkeys(holding.keys[holding.keyed : upto], 1))
            holding.keyed = upto

    def release(self, holding: Holding, total: int) -> None:
        """Stop holding `total` blocks, those of the answer included."""
        lost_at, held, made = self._taken + self.free, self._held, self._made
        freed = total - len(holding.blocks)
        for key in reversed(holding.keys[len(holding.blocks) : holding.keyed]):
            made[key] = references = made[key] - 1
            self._made_lost_at[key] = lost_at = lost_at + 1
            freed -= references > 0
        for block in reversed(holding.blocks):
            self._references[block] = change = self._references.get(block, 0) - 1
            if not held[block] + change:
                self._lost_at[block] = lost_at = lost_at + 1
                freed += 1
        self.free += freed
        holding.blocks, holding.keyed, holding.total = [], 0, 0

    def _is_lost(self, block: int) -> bool:
        if self._held[block] + self._references.get(block, 0):
            return False
        lost_at = self._lost_at.get(block)
        if lost_at is not None:
            return self._taken >= lost_at
        while len(self._gone) < self._taken:
            following = next(self._queue, None)
            if following is None:
                break
            self._gone.add(following)
        return block in self._gone

    def _is_made(self, key: int) -> bool:
        references = self._made.get(key)
        return references is not None and (references > 0 or self._taken < self._made_lost_at[key])
