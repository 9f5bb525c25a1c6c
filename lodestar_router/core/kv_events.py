"""The KV-cache events of an engine, as values.

    KvEventBatch ─ holds ─► BlockStored | BlockRemoved | AllBlocksCleared

A `block hash` here is the engine's own name for a block (an integer or bytes,
by its setting): it links events of one engine and means nothing elsewhere. The
router names blocks by keys of its own (`core/blocks.py`).

Source   vllm/distributed/kv_events.py at v0.32.0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Struct

from lodestar_router.core.types import EngineId, PrefixViewKind

BlockHash = int | bytes
ExtraKeys = tuple[Any, ...]

MEDIUM_GPU = "GPU"


class ViewId(Struct, frozen=True):
    """One KV cache: an engine, and the data-parallel rank inside it."""

    engine_id: EngineId
    dp_rank: int = 0


class BlockStored(Struct, frozen=True, kw_only=True):
    """Consecutive blocks of one sequence became reusable.

    `token_ids` holds the tokens of all `block_hashes` in order. `extra_keys`
    has one entry per block, or is None when the engine does not say: LoRA name,
    (multimodal id, offset) pairs, cache salt (first block of a prompt only) and
    prompt-embedding digests, untagged and in that order.
    """

    block_hashes: tuple[BlockHash, ...]
    parent_block_hash: BlockHash | None  # None: the first block starts a sequence
    token_ids: Sequence[int]
    block_size_tokens: int
    lora_id: int | None = None
    medium: str | None = None  # None: an engine that knows only the GPU
    lora_name: str | None = None
    extra_keys: tuple[ExtraKeys | None, ...] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    # Our keys of the blocks, if the event was made in this process; None: from the tokens.
    keys: Sequence[int] | None = None


class BlockRemoved(Struct, frozen=True, kw_only=True):
    """Blocks were evicted; one mention per physical block, so one per earlier store."""

    block_hashes: tuple[BlockHash, ...]
    medium: str | None = None
    group_idx: int | None = None


@dataclass(frozen=True, slots=True)
class AllBlocksCleared:
    """The prefix cache was emptied."""


KvEvent = BlockStored | BlockRemoved | AllBlocksCleared


@dataclass(frozen=True, slots=True, kw_only=True)
class KvEventBatch:
    """The events of one engine step, in order."""

    ts: float  # the engine's wall clock, seconds; never compared with ours
    events: tuple[KvEvent, ...]
    dp_rank: int | None = None
    unknown_events: int = 0  # of kinds this router does not know, left out of `events`


class KvSink(Protocol):
    """Where a subscriber puts what it learns of one view."""

    def apply(self, view: ViewId, events: Sequence[KvEvent], unknown_events: int = 0) -> None:
        """Apply events in order; `unknown_events` were left out and are only counted."""
        ...

    def reset(self, view: ViewId) -> None:
        """Forget every block of the view: its cache is empty or unknown now."""
        ...

    def set_kind(self, view: ViewId, kind: PrefixViewKind) -> None:
        """Say how complete the stream of events behind the view is."""
        ...
