"""One KV cache as its events tell it, plus what this router has just sent there.

    held = stored by the engine, minus removed      (BlockStored, BlockRemoved)
         + full prompt blocks of requests in flight (reserve, release)

vLLM makes the blocks of a request reusable when it schedules it, before their
events are out. Requests are scheduled first come, first served, so for the next
request they are as good as stored from dispatch on: that is the overlay. Of a
short answer even the end may be here before its events (seen on vLLM 0.32: in
three of four, by 0.3 ms to tens of ms), so blocks released before they were stored stay
for a few batches more.

A block hash is stored once per physical block and removed once per physical
block, so stores are counted: two requests that compute the same block side by
side store it twice, and it is gone only after the second removal.

In       events of one stream in order; reservations of this router.
Out      one bit of the key table; counts; whether anything is known to be missing.
Cost     about 3 us to store a block that comes alone, 1 us to remove it; 0.5 us for
         both where many come at once. Memory about 350 bytes per block.
Errors   none: what cannot be named is counted, and the view is `damaged`.
Source   vllm/v1/core/block_pool.py at v0.32.0: cache_full_blocks,
         _maybe_evict_cached_block, reset_prefix_cache.

Only blocks that can be matched count: medium GPU, one full-attention group,
and the block size of that group. A request in vLLM's `kv_cache_report_mode`
"full" stores its hits again without a new block; such engines show more blocks
than they have, which makes the view damaged once the bound is passed.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import islice

from lodestar_router.core.blocks import stored_keys
from lodestar_router.core.key_counts import KeyCounts
from lodestar_router.core.key_table import KeyTable
from lodestar_router.core.kv_events import (
    MEDIUM_GPU,
    AllBlocksCleared,
    BlockHash,
    BlockRemoved,
    BlockStored,
    KvEvent,
)
from lodestar_router.core.types import PrefixViewKind

EXACT_BOUND_BLOCKS = 262_144  # 4 Mi tokens in blocks of 16: above any single GPU's cache today

_LINGER_STEPS = 16  # batches and releases; the late events are in the next one or two batches

_WHOLE_PREFIX_KINDS = frozenset(
    {None, "full_attention", "mla_attention", "sink_full_attention", "unknown"}
)


class ExactView:
    """Blocks by the engine's hash and by our key; see the module for the rules."""

    def __init__(self, table: KeyTable, bound_blocks: int = EXACT_BOUND_BLOCKS) -> None:
        self._table = table
        self.bit = table.claim_bit()
        self.bound_blocks = bound_blocks
        self.stream_kind = PrefixViewKind.NONE  # what the subscriber says of its stream
        self.damaged = False  # something was not named or had to be dropped since last empty
        self.block_size_tokens: int | None = None  # of the group that counts; None: none seen
        self.events = self.unknown_events = self.orphans = self.evicted = 0
        self._group: int | None = None
        self._by_hash: dict[BlockHash, int] = {}  # -> key, oldest first
        self._repeats: Counter[BlockHash] = Counter()  # stores of a hash beyond the first
        self._repeat_total = 0
        self._stored = KeyCounts()  # a key's holders are its hashes, nearly always one
        self._reserved = KeyCounts()  # its holders are requests in flight
        self._prompts: dict[int, Sequence[int]] = {}  # last key of each such request -> its keys
        self._steps = 0
        self._lingering: deque[tuple[int, Sequence[int]]] = deque()  # (until step, keys)

    @property
    def kind(self) -> PrefixViewKind:
        """What may be claimed of this view."""
        if self.damaged and self.stream_kind is PrefixViewKind.EXACT:
            return PrefixViewKind.PARTIAL
        return self.stream_kind

    @property
    def blocks(self) -> int:
        """Distinct blocks the engine has stored."""
        return len(self._stored)

    @property
    def reserved_blocks(self) -> int:
        """Distinct blocks of requests in flight."""
        return len(self._reserved)

    def apply(self, events: Iterable[KvEvent]) -> None:
        """Apply events in the order the engine gave them."""
        gone: list[BlockHash] = []  # an engine makes room with many removals in a row
        for event in events:
            self.events += 1
            if isinstance(event, BlockRemoved):
                if event.medium in (None, MEDIUM_GPU) and event.group_idx in (None, self._group):
                    gone += event.block_hashes
                continue
            if gone:
                self._remove(gone)
                gone = []
            if isinstance(event, BlockStored):
                if event.medium in (None, MEDIUM_GPU) and self._counts(event):
                    self._store(event)
            elif isinstance(event, AllBlocksCleared):
                self.clear()
        if gone:
            self._remove(gone)
        self._step()

    def clear(self) -> None:
        """The cache is empty, or must be taken for it; requests in flight keep theirs."""
        while self._lingering:
            self._unreserve(self._lingering.popleft()[1])
        self._by_hash.clear()
        self._repeats.clear()
        self._repeat_total = 0
        self._table.clear(self._stored.keys - self._reserved.keys, self.bit)
        self._stored.clear()
        self._group = self.block_size_tokens = None
        self.damaged = False

    def close(self) -> None:
        """Leave the table; the view is not used again."""
        self.clear()
        self._table.clear(self._reserved.keys, self.bit)
        self._reserved.clear()
        self._prompts.clear()
        self._table.free_bit(self.bit)
        self.bit = 0  # a reservation released later must not touch the bit's next owner

    def reserve(self, keys: Sequence[int]) -> None:
        """Count `keys` as held until the same keys are released."""
        self._table.set(self._reserved.add(keys), self.bit)
        if keys:
            self._prompts[keys[-1]] = keys

    def release(self, keys: Sequence[int], completed: bool = True) -> None:
        """Undo one `reserve` of the same keys; those of a completed request linger."""
        if keys:
            self._prompts.pop(keys[-1], None)
        stored = self._stored.keys
        if stored.issuperset(keys):
            self._reserved.remove(keys)
        elif completed:
            late = [key for key in keys if key not in stored]
            self._lingering.append((self._steps + _LINGER_STEPS, late))
            self._reserved.remove([key for key in keys if key in stored])
        else:
            self._unreserve(keys)
        self._step()

    def _step(self) -> None:
        self._steps += 1
        while self._lingering and self._lingering[0][0] <= self._steps:
            self._unreserve(self._lingering.popleft()[1])

    def _unreserve(self, keys: Sequence[int]) -> None:
        self._unhold(self._reserved.remove(keys), self._stored)

    def _unhold(self, keys: Sequence[int], otherwise: KeyCounts) -> None:
        """Take our bit off keys that are no longer held in one way, nor in the other."""
        if otherwise.keys.isdisjoint(keys):
            self._table.clear(keys, self.bit)
        elif not otherwise.keys.issuperset(keys):
            self._table.clear([key for key in keys if key not in otherwise.keys], self.bit)

    def _counts(self, event: BlockStored) -> bool:
        """Whether the event is of the group and block size that are matched.

        The first full-attention group seen is the one; the whole prefix of a
        prompt must be in it for a hit, whatever other groups hold.
        """
        if event.kv_cache_spec_kind is None and event.group_idx:
            return False  # an engine that names groups but not their kinds: the first one counts
        if event.kv_cache_spec_kind not in _WHOLE_PREFIX_KINDS:
            return False
        if self.block_size_tokens is None:
            self._group, self.block_size_tokens = event.group_idx, event.block_size_tokens
        return event.group_idx == self._group and event.block_size_tokens == self.block_size_tokens

    def _store(self, event: BlockStored) -> None:
        parent_hash = event.parent_block_hash
        parent = None if parent_hash is None else self._by_hash.get(parent_hash)
        unknown_parent = parent_hash is not None and parent is None
        keys = None if unknown_parent else stored_keys(event, parent)
        if keys is None:
            self.orphans += len(event.block_hashes)
            self.damaged = True
            return
        hashes = event.block_hashes
        if len(hashes) != 1 or not self._hold_alone(hashes[0], keys[0]):
            self._hold(hashes, keys)
        if len(self._by_hash) + self._repeat_total > self.bound_blocks:
            self._drop_oldest()

    def _hold_alone(self, block_hash: BlockHash, key: int) -> bool:
        """Add one block unless it is known: most that an answer fills come so."""
        if block_hash in self._by_hash or key in self._stored.keys:
            return False
        self._by_hash[block_hash] = key
        self._stored.keys.add(key)
        if key not in self._reserved.keys:
            self._table.set((key,), self.bit)
        return True

    def _hold(self, hashes: Sequence[BlockHash], keys: Sequence[int]) -> None:
        """Add blocks; those up to the end of a prompt in flight have our bit already.

        They also take over the prompt's own int objects: that saves memory, and time
        whenever the keys of the one are looked up among those of the other.
        """
        prompt = self._prompts.get(keys[-1]) if keys else None
        end = keys if prompt is None else prompt[-len(keys) :]
        if reserved := prompt is not None and end == keys:
            keys = end
        if not self._by_hash.keys().isdisjoint(hashes) or len(set(hashes)) < len(hashes):
            hashes, keys = self._count_repeats(hashes, keys)
        self._by_hash.update(zip(hashes, keys, strict=True))
        new = self._stored.add(keys)
        if not reserved and not self._reserved.keys.issuperset(new):
            self._table.set(new, self.bit)

    def _count_repeats(
        self, hashes: Sequence[BlockHash], keys: Sequence[int]
    ) -> tuple[Sequence[BlockHash], Sequence[int]]:
        """The hashes that are new, with their keys; a further store of the others is counted."""
        new: dict[BlockHash, int] = {}
        for block_hash, key in zip(hashes, keys, strict=True):
            if block_hash in self._by_hash or block_hash in new:
                self._repeats[block_hash] += 1
                self._repeat_total += 1
            else:
                new[block_hash] = key
        return [*new], [*new.values()]

    def _remove(self, hashes: Sequence[BlockHash]) -> None:
        """One physical block of each hash is gone; unknown hashes are ignored."""
        if len(hashes) == 1 and self._forget_alone(hashes[0]):
            return
        if self._repeats and not self._repeats.keys().isdisjoint(hashes):
            hashes = [block_hash for block_hash in hashes if not self._was_repeat(block_hash)]
        self._forget(hashes)

    def _forget_alone(self, block_hash: BlockHash) -> bool:
        """Take out one block if it was stored once: most that make room for an answer are such."""
        if block_hash in self._repeats:
            return False
        key = self._by_hash.get(block_hash)
        if key is None or not self._stored.remove_last(key):
            return False
        del self._by_hash[block_hash]
        if key not in self._reserved.keys:
            self._table.clear((key,), self.bit)
        return True

    def _was_repeat(self, block_hash: BlockHash) -> bool:
        """Take one off the repeated stores of a hash, if there are any."""
        repeats = self._repeats.get(block_hash)
        if repeats is None:
            return False
        self._repeat_total -= 1
        if repeats > 1:
            self._repeats[block_hash] = repeats - 1
        else:
            del self._repeats[block_hash]
        return True

    def _forget(self, hashes: Iterable[BlockHash]) -> None:
        pop = self._by_hash.pop
        keys = [key for each in hashes if (key := pop(each, None)) is not None]
        self._unhold(self._stored.remove(keys), self._reserved)

    def _drop_oldest(self) -> None:
        """An engine cannot hold this much: removals were missed or stores repeated."""
        self.damaged = True
        surplus = len(self._by_hash) + self._repeat_total - self.bound_blocks
        # Some more than needed: finding the oldest of a dict scans over those dropped before.
        surplus += self.bound_blocks // 64
        oldest = list(islice(self._by_hash, surplus))
        self._repeat_total -= sum(self._repeats.pop(block_hash, 0) for block_hash in oldest)
        self._forget(oldest)
        self.evicted += len(oldest)
