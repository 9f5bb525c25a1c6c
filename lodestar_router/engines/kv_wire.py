"""KV event batches <-> msgpack, as every vLLM so far has encoded them.

In       the payload frame of a PUB or replay message.
Out      KvEventBatch; encode() gives the bytes vLLM 0.32 would send.
Cost     about 3 us per event of one block of 16 tokens.
Errors   KvWireError for a payload that is not a batch of events.
Source   vllm/distributed/kv_events.py at v0.32.0: the batch is an array, events
         are maps with a "type"; before that events were arrays whose first
         element is the type, and fields were appended over time.

A kind of event that is not known is left out and counted: what an engine says
beyond storing and removing blocks does not change what can be matched. A field
that is missing has the value it stands for in the version that lacked it, and
one that is not known is skipped.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from lodestar_router.core.kv_events import (
    AllBlocksCleared,
    BlockHash,
    BlockRemoved,
    BlockStored,
    ExtraKeys,
    KvEvent,
    KvEventBatch,
)

# Field order of array-encoded forms; the fields of a map may come in any order.
_BATCH_FIELDS = ("ts", "events", "data_parallel_rank")
_FIELDS = {
    "BlockStored": (
        "block_hashes",
        "parent_block_hash",
        "token_ids",
        "block_size",
        "lora_id",
        "medium",
        "lora_name",
        "extra_keys",
        "group_idx",
        "kv_cache_spec_kind",
    ),
    "BlockRemoved": ("block_hashes", "medium", "group_idx"),
    "AllBlocksCleared": (),
}
_Fields = Mapping[str, Any]


class KvWireError(ValueError):
    """A payload that is not a batch of KV events."""


def decode(payload: bytes) -> KvEventBatch:
    """One batch from the payload frame of a message."""
    try:
        batch = _named(msgspec.msgpack.decode(payload), _BATCH_FIELDS)
        dp_rank = batch.get("data_parallel_rank")
        raw_events = _list(batch["events"])
        events = [event for raw in raw_events if (event := _event(raw)) is not None]
        return KvEventBatch(
            ts=float(batch["ts"]),
            events=tuple(events),
            dp_rank=None if dp_rank is None else int(dp_rank),
            unknown_events=len(raw_events) - len(events),
        )
    except (msgspec.DecodeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise KvWireError(f"not a batch of KV events: {error!r}") from error


def encode(batch: KvEventBatch) -> bytes:
    """The payload vLLM 0.32 sends for `batch`; trailing defaults are left out as it does."""
    body: list[Any] = [batch.ts, [_map_of(event) for event in batch.events]]
    if batch.dp_rank is not None:
        body.append(batch.dp_rank)
    return msgspec.msgpack.encode(body)


def _named(raw: Any, names: Sequence[str]) -> _Fields:
    """An array or a map as a map; array elements beyond `names` are of newer versions."""
    if isinstance(raw, dict):
        return raw
    return dict(zip(names, _list(raw), strict=False))


def _list(raw: Any) -> list[Any]:
    if not isinstance(raw, list):
        raise TypeError(f"expected an array, got {type(raw).__name__}")
    return raw


def _event(raw: Any) -> KvEvent | None:
    """The event, or None for a kind that is not known."""
    is_map = isinstance(raw, dict)
    kind = raw["type"] if is_map else _list(raw)[0]
    make = _MAKERS.get(kind)
    if make is None:
        return None
    return make(raw if is_map else _named(raw[1:], _FIELDS[kind]))


def _block_stored(fields: _Fields) -> BlockStored:
    extra_keys = fields.get("extra_keys")
    parent = fields["parent_block_hash"]
    return BlockStored(
        block_hashes=_hashes(fields["block_hashes"]),
        parent_block_hash=None if parent is None else _hashes([parent])[0],
        # Refuses anything but integers of 32 bits, and holds them in 4 bytes each.
        token_ids=array("I", _list(fields["token_ids"])),
        block_size_tokens=int(fields["block_size"]),
        lora_id=fields.get("lora_id"),
        medium=fields.get("medium"),
        lora_name=fields.get("lora_name"),
        extra_keys=None if extra_keys is None else tuple(map(_extra, _list(extra_keys))),
        group_idx=fields.get("group_idx"),
        kv_cache_spec_kind=fields.get("kv_cache_spec_kind"),
    )


def _block_removed(fields: _Fields) -> BlockRemoved:
    return BlockRemoved(
        block_hashes=_hashes(fields["block_hashes"]),
        medium=fields.get("medium"),
        group_idx=fields.get("group_idx"),
    )


def _hashes(raw: Any) -> tuple[BlockHash, ...]:
    hashes = tuple(_list(raw))
    for block_hash in hashes:
        if not isinstance(block_hash, int | bytes):
            raise TypeError(f"a block hash is a {type(block_hash).__name__}")
    return hashes


def _extra(raw: Any) -> ExtraKeys | None:
    """One block's extra keys, with arrays as tuples so that they compare and hash."""
    if raw is None:
        return None
    return tuple([_extra(part) if isinstance(part, list) else part for part in _list(raw)])


_MAKERS: dict[Any, Callable[[_Fields], KvEvent]] = {
    "BlockStored": _block_stored,
    "BlockRemoved": _block_removed,
    "AllBlocksCleared": lambda _: AllBlocksCleared(),
}


def _map_of(event: KvEvent) -> dict[str, Any]:
    if isinstance(event, AllBlocksCleared):
        return {"type": "AllBlocksCleared"}
    if isinstance(event, BlockRemoved):
        removed = {
            "type": "BlockRemoved",
            "block_hashes": event.block_hashes,
            "medium": event.medium,
        }
        return removed | _present(group_idx=event.group_idx)
    stored = {
        "type": "BlockStored",
        "block_hashes": event.block_hashes,
        "parent_block_hash": event.parent_block_hash,
        "token_ids": list(event.token_ids),
        "block_size": event.block_size_tokens,
        "lora_id": event.lora_id,
        "medium": event.medium,
        "lora_name": event.lora_name,
    }
    return stored | _present(
        extra_keys=event.extra_keys,
        group_idx=event.group_idx,
        kv_cache_spec_kind=event.kv_cache_spec_kind,
    )


def _present(**optional: Any) -> dict[str, Any]:
    """Fields that have a default, without those that have it."""
    return {name: value for name, value in optional.items() if value is not None}
