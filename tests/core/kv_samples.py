"""Prompts and events of an engine with made-up block hashes."""

from collections.abc import Sequence

import numpy as np

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.kv_events import BlockHash, BlockRemoved, BlockStored
from lodestar_router.core.types import EngineId

BLOCK = 4  # tokens
A, B = EngineId("a"), EngineId("b")


def tokens(blocks: int, *, seed: int = 0, extra: int = 0) -> list[int]:
    """Token ids of so many blocks, and `extra` more; a longer list begins like a shorter one."""
    ids = np.random.default_rng(seed).integers(0, 1 << 17, 400)
    return [int(token) for token in ids[: blocks * BLOCK + extra]]


def prompt_of(*sequences: Sequence[int], **identity: str | None) -> Prompt:
    return Prompt([np.array(ids, dtype=np.uint32) for ids in sequences], **identity)


def stored(
    hashes: Sequence[BlockHash],
    token_ids: Sequence[int],
    *,
    parent: BlockHash | None = None,
    block_size_tokens: int = BLOCK,
    medium: str | None = "GPU",
    group_idx: int | None = 0,
    kind: str | None = "full_attention",
) -> BlockStored:
    return BlockStored(
        block_hashes=tuple(hashes),
        parent_block_hash=parent,
        token_ids=token_ids,
        block_size_tokens=block_size_tokens,
        medium=medium,
        group_idx=group_idx,
        kv_cache_spec_kind=kind,
    )


def removed(
    *hashes: BlockHash, group_idx: int | None = 0, medium: str | None = "GPU"
) -> BlockRemoved:
    return BlockRemoved(block_hashes=hashes, medium=medium, group_idx=group_idx)
