"""The KV blocks of one engine: who holds them, which content they keep, who is next to go.

Free blocks wait in one queue. Its head is handed out next; only then is the
content it kept forgotten. Freed blocks that keep content join the tail, so the
queue is least recently used first; those without content go to the front.

In       numbers of blocks, block keys.
Out      block ids; KV events in the order of the changes, with the blocks that lose
         their content for one allocation in one event.
Cost     about 0.1 us per block to hand it out, and as much to store its content.
Errors   none: callers ask `free_count` before they allocate.
Source   vllm/v1/core/block_pool.py and kv_cache_utils.py at v0.32.0.

Block 0 is vLLM's null block and is never handed out. No clock.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as SequenceOf
from itertools import islice

from msgspec.structs import replace

from lodestar_router.core.kv_events import (
    MEDIUM_GPU,
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    KvEvent,
)
from lodestar_router.emulator.free_queue import FreeQueue
from lodestar_router.emulator.sequence import Sequence

_GROUP = 0  # one group of layers, all with full attention
_SPEC_KIND = "full_attention"


class BlockPool:
    """All blocks but the null block are free or held by `references` sequences each."""

    def __init__(
        self, num_blocks: int, block_size_tokens: int, *, events: bool, tokens: bool = True
    ) -> None:
        """Whether changes make events, and whether those tell the tokens of stored blocks."""
        self._size = block_size_tokens
        self._publish = events
        self._tell_tokens = tokens
        self._free = FreeQueue(range(1, num_blocks))
        self._references = [0] * num_blocks
        self._content: list[int | None] = [None] * num_blocks  # block -> key
        self._by_key: dict[int, int] = {}  # key -> the block that has kept it longest
        self._twins: dict[int, list[int]] = {}  # key -> further blocks, oldest first
        self._events: list[KvEvent] = []
        self.capacity = num_blocks - 1
        self.releases = 0  # calls of `release`: only they make blocks free

    @property
    def free_count(self) -> int:
        """Blocks that no sequence holds."""
        return self._free.count

    @property
    def usage_ratio(self) -> float:
        """0..1: held blocks of all that can be held."""
        return 1.0 - self._free.count / self.capacity

    @property
    def references(self) -> SequenceOf[int]:
        """How many sequences hold each block; live, not a copy."""
        return self._references

    def free_queue(self) -> Iterator[int]:
        """Blocks that no sequence holds, next to be handed out first."""
        return iter(self._free)

    def lookup(self, keys: SequenceOf[int], limit: int) -> list[int]:
        """Blocks that keep the longest known run of the first `limit` keys."""
        by_key, found = self._by_key, []
        for key in islice(keys, limit):
            block = by_key.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def keeps(self, key: int) -> bool:
        """Whether some block keeps this content."""
        return key in self._by_key

    def idle(self, blocks: SequenceOf[int]) -> int:
        """How many of `blocks` are free, so that taking them costs free blocks."""
        references = self._references
        return [references[block] for block in blocks].count(0)

    def share(self, blocks: SequenceOf[int]) -> None:
        """Hold blocks that `lookup` found."""
        references = self._references
        self._free.leave([block for block in blocks if not references[block]])
        for block in blocks:
            references[block] += 1

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks from the head of the queue; they lose what they keep."""
        references, content = self._references, self._content
        by_key, twins = self._by_key, self._twins
        taken, gone = self._free.take(count), []
        for block in taken:
            references[block] = 1
            key = content[block]
            if key is not None:
                content[block] = None
                gone.append(key)
                if key in twins:
                    self._leave_twins(block, key)
                else:
                    del by_key[key]
        if gone and self._publish:
            self._events.append(
                BlockRemoved(block_hashes=tuple(gone), medium=MEDIUM_GPU, group_idx=_GROUP)
            )
        return taken

    def release(self, blocks: list[int], stored: int) -> None:
        """Stop holding a sequence's blocks; its last ones are the first to go.

        The first `stored` of them keep content. Of the others it was the only holder.
        """
        self.releases += 1
        references = self._references
        kept: list[int] = []
        for block in reversed(blocks[:stored]):
            references[block] = others = references[block] - 1
            if not others:
                kept.append(block)
        bare = blocks[stored:]
        for block in bare:
            references[block] = 0
        self._free.append(kept)
        self._free.put_in_front(bare[::-1])

    def store(self, sequence: Sequence, upto: int) -> None:
        """Let `sequence.blocks[stored_blocks:upto]`, which are full, be found by key."""
        first = sequence.stored_blocks
        if upto <= first:
            return
        if len(sequence.keys) < upto:
            sequence.extend_keys(upto)
        keys = sequence.keys[first:upto]
        content, keep = self._content, self._by_key.setdefault
        for block, key in zip(sequence.blocks[first:upto], keys, strict=True):
            content[block] = key
            if keep(key, block) != block:
                self._twins.setdefault(key, []).append(block)
        sequence.stored_blocks = upto
        if self._publish:
            size = self._size
            self._events.append(
                BlockStored(
                    block_hashes=tuple(keys),
                    parent_block_hash=sequence.keys[first - 1] if first else None,
                    token_ids=sequence.tokens(first * size, upto * size)
                    if self._tell_tokens
                    else (),
                    block_size_tokens=size,
                    medium=MEDIUM_GPU,
                    extra_keys=(None,) * len(keys),
                    group_idx=_GROUP,
                    kv_cache_spec_kind=_SPEC_KIND,
                    keys=keys,
                )
            )

    def clear(self) -> bool:
        """Forget all content; refused while a sequence holds blocks, as vLLM does."""
        if self._free.count != self.capacity:
            return False
        self._content = [None] * len(self._content)
        self._by_key.clear()
        self._twins.clear()
        if self._publish:
            self._events.append(AllBlocksCleared())
        return True

    def take_events(self) -> list[KvEvent]:
        """Events since the last call."""
        events, self._events = self._events, []
        return events

    def _leave_twins(self, block: int, key: int) -> None:
        """One of several blocks with the same content loses it; the others keep it."""
        twins = self._twins[key]
        if self._by_key[key] == block:
            self._by_key[key] = twins.pop(0)
        else:
            twins.remove(block)
        if not twins:
            del self._twins[key]


def as_published(events: Iterable[KvEvent]) -> Iterator[KvEvent]:
    """The events as vLLM sends them: it has one BlockRemoved for each block."""
    for event in events:
        if isinstance(event, BlockRemoved):
            for block_hash in event.block_hashes:
                yield replace(event, block_hashes=(block_hash,))
        else:
            yield event
