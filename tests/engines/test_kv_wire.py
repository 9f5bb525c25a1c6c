"""Payloads of real and of older engines, byte for byte where it matters."""

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.kv_events import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    KvEventBatch,
    ViewId,
)
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import EngineId, PrefixViewKind
from lodestar_router.engines.kv_wire import KvWireError, decode, encode

CAPTURE = Path(__file__).parent.parent / "data" / "kv_events_vllm032_capture.jsonl.gz"
END_OF_REPLAY = b"\xff" * 8
ENGINE = EngineId("a")


def capture(*kinds: str) -> list[dict[str, Any]]:
    """Records of the capture, in the order of recording."""
    with gzip.open(CAPTURE, "rt") as lines:
        return [record for line in lines if (record := json.loads(line))["kind"] in kinds]


def frames_of(kind: str) -> Iterator[tuple[int, bytes]]:
    """(sequence number, payload) of each captured message."""
    for record in capture(kind):
        frames = [base64.b64decode(frame) for frame in record["frames"]]
        if frames[-2] != END_OF_REPLAY:
            yield int.from_bytes(frames[-2], "big"), frames[-1]


def test_a_captured_stream_is_decoded_and_encoded_again_to_the_same_bytes() -> None:
    payloads = [payload for _, payload in frames_of("event")]

    assert len(payloads) == 30
    for payload in payloads:
        batch = decode(payload)
        assert batch.dp_rank == 0
        assert batch.unknown_events == 0
        assert encode(batch) == payload


def test_a_captured_replay_repeats_the_captured_stream() -> None:
    live = dict(frames_of("event"))

    replayed = dict(frames_of("replay"))

    assert sorted(replayed) == list(range(5, 30))
    assert all(live[seq] == payload for seq, payload in replayed.items())


def test_a_captured_stream_predicts_what_the_engine_said_it_had_cached() -> None:
    index = PrefixIndex()
    index.add_engine(ENGINE)
    index.set_kind(ViewId(ENGINE), PrefixViewKind.EXACT)
    # Events leave the engine after the answer they belong to; a request sees all before it.
    records = capture("event", "request")
    records.sort(key=lambda r: r.get("received_at_s") or r["sent_at_s"])
    compared = 0

    for record in records:
        if record["kind"] == "event":
            batch = decode(base64.b64decode(record["frames"][-1]))
            index.apply(ViewId(ENGINE), batch.events)
        elif record.get("prompt_token_ids"):
            prompt = Prompt([np.array(record["prompt_token_ids"], dtype=np.uint32)])
            reported = record["usage"]["prompt_tokens_details"]["cached_tokens"]
            assert index.match(prompt, [ENGINE]) == {ENGINE: reported}
            compared += 1

    assert compared == 24
    assert index.kind(ENGINE) is PrefixViewKind.EXACT


def stored_fields(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "block_hashes": [1, 2],
        "parent_block_hash": None,
        "token_ids": [10, 11, 12, 13],
        "block_size": 2,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": [None, ["salt"]],
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
    }
    return fields | changes


def payload_of(*events: Any, **batch: Any) -> bytes:
    return msgspec.msgpack.encode(batch or [1.5, list(events), 3])


def as_map(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "BlockStored", **fields}


def as_array(fields: dict[str, Any], keep: int = 10) -> list[Any]:
    return ["BlockStored", *list(fields.values())[:keep]]


def the_event(payload: bytes) -> BlockStored:
    [event] = decode(payload).events
    assert isinstance(event, BlockStored)
    return event


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(as_map(stored_fields()), id="map"),
        pytest.param(as_array(stored_fields()), id="array"),
        pytest.param(as_map(stored_fields(session_id="s", later=[1])), id="map-of-a-newer-vllm"),
        pytest.param([*as_array(stored_fields()), None, "local", "x"], id="array-of-a-newer-vllm"),
    ],
)
def test_an_event_means_the_same_in_every_encoding(raw: Any) -> None:
    event = the_event(payload_of(raw))

    assert event.block_hashes == (1, 2)
    assert event.parent_block_hash is None
    assert list(event.token_ids) == [10, 11, 12, 13]
    assert event.block_size_tokens == 2
    assert event.extra_keys == (None, ("salt",))
    assert (event.medium, event.group_idx) == ("GPU", 0)
    assert event.kv_cache_spec_kind == "full_attention"


@pytest.mark.parametrize("keep", [5, 6, 7, 8, 9])
def test_trailing_fields_that_older_engines_lack_are_unknown(keep: int) -> None:
    event = the_event(payload_of(as_array(stored_fields(), keep)))

    assert event.medium == ("GPU" if keep > 5 else None)
    assert event.extra_keys == ((None, ("salt",)) if keep > 7 else None)
    assert event.group_idx == (0 if keep > 8 else None)
    assert event.kv_cache_spec_kind is None


def test_hashes_may_be_bytes() -> None:
    event = the_event(
        payload_of(as_map(stored_fields(block_hashes=[b"a", b"b"], parent_block_hash=b"p")))
    )

    assert event.block_hashes == (b"a", b"b")
    assert event.parent_block_hash == b"p"


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        ({"type": "AllBlocksCleared"}, AllBlocksCleared()),
        (["AllBlocksCleared"], AllBlocksCleared()),
        (["BlockRemoved", [1]], BlockRemoved(block_hashes=(1,))),
        (["BlockRemoved", [1], "CPU"], BlockRemoved(block_hashes=(1,), medium="CPU")),
        (
            {"type": "BlockRemoved", "block_hashes": [b"x"], "medium": "GPU", "group_idx": 1},
            BlockRemoved(block_hashes=(b"x",), medium="GPU", group_idx=1),
        ),
    ],
)
def test_removals_and_clearings(raw: Any, event: Any) -> None:
    assert decode(payload_of(raw)).events == (event,)


def test_unknown_kinds_of_event_are_left_out_and_counted() -> None:
    batch = decode(payload_of({"type": "BlockMoved", "to": 1}, ["Other"], ["AllBlocksCleared"]))

    assert batch.events == (AllBlocksCleared(),)
    assert batch.unknown_events == 2


@pytest.mark.parametrize(
    ("payload", "dp_rank"),
    [
        pytest.param(msgspec.msgpack.encode([1.5, []]), None, id="no-rank"),
        pytest.param(msgspec.msgpack.encode([1.5, [], 2]), 2, id="rank"),
        pytest.param(msgspec.msgpack.encode([1.5, [], 2, "later"]), 2, id="newer"),
        pytest.param(payload_of(ts=1.5, events=[]), None, id="map"),
        pytest.param(payload_of(events=[], data_parallel_rank=1, ts=1.5, x=0), 1, id="map-rank"),
    ],
)
def test_batches_of_every_encoding(payload: bytes, dp_rank: int | None) -> None:
    assert decode(payload) == KvEventBatch(ts=1.5, events=(), dp_rank=dp_rank)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xc1", id="not-msgpack"),
        pytest.param(msgspec.msgpack.encode(7), id="a-number"),
        pytest.param(msgspec.msgpack.encode([]), id="no-fields"),
        pytest.param(msgspec.msgpack.encode([1.5, 7]), id="events-are-a-number"),
        pytest.param(payload_of("BlockStored"), id="an-event-is-a-string"),
        pytest.param(payload_of([]), id="an-event-is-empty"),
        pytest.param(payload_of({"block_hashes": []}), id="an-event-without-kind"),
        pytest.param(payload_of([["BlockStored"]]), id="a-kind-is-an-array"),
        pytest.param(payload_of(["BlockStored", [1]]), id="fields-missing"),
        pytest.param(payload_of(as_map(stored_fields(token_ids=[-1]))), id="negative-token"),
        pytest.param(payload_of(as_map(stored_fields(token_ids=["a"]))), id="token-is-text"),
        pytest.param(payload_of(as_map(stored_fields(block_hashes=["a"]))), id="hash-is-text"),
        pytest.param(payload_of(as_map(stored_fields(block_hashes=[[1]]))), id="hash-is-a-list"),
        pytest.param(payload_of(as_map(stored_fields(extra_keys=[1]))), id="extra-is-a-number"),
    ],
)
def test_a_malformed_payload_is_one_kind_of_error(payload: bytes) -> None:
    with pytest.raises(KvWireError, match="not a batch of KV events"):
        decode(payload)


def test_what_is_encoded_is_decoded_to_the_same() -> None:
    batch = KvEventBatch(
        ts=2.25,
        events=(
            the_event(payload_of(as_map(stored_fields()))),
            BlockRemoved(block_hashes=(b"x", 2), medium="GPU", group_idx=0),
            AllBlocksCleared(),
        ),
    )

    assert decode(encode(batch)) == batch
