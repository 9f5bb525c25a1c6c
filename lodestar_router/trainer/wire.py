"""Frames on the two pipes between the router and its trainer process.

    frame = length of the rest, uint32 | kind, uint8 | payload

    router -> trainer   MODEL and RECALL (where to start from), ROWS, STOP,
                        ROUTER (to be kept in the state directory)
    trainer -> router   MODEL (a new version), REPORT

ROWS is a msgpack array of arrays, feature vectors as little-endian float32
bytes: about 150 bytes a row. MODEL is features.model_codec. REPORT is the
TrainReport as a msgpack map.

Errors   WireError for a frame that cannot be; the link restarts the trainer, the
         trainer exits.
"""

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

import msgspec
import numpy as np

from lodestar_router.core.types import EngineId
from lodestar_router.errors import RouterError
from lodestar_router.features.row import TrainingRow

MAX_FRAME_BYTES = 16 * 1024 * 1024  # a model is 20 KB, a batch of rows 40 KB: beyond is garbage
_HEAD = struct.Struct("<IB")


class WireError(RouterError):
    """Bytes on the pipe that are not a frame, or a payload that is not its kind's."""


class Kind(IntEnum):
    """What a frame's payload is."""

    ROWS = 1
    MODEL = 2
    REPORT = 3
    STOP = 4
    RECALL = 5  # payload OLDER_ROWS: those that the router has itself are left out
    ROUTER = 6


OLDER_ROWS = b"older"


_KINDS = {kind.value: kind for kind in Kind}


class _Row(msgspec.Struct, array_like=True, frozen=True):
    features: bytes
    work_tokens: int
    gpu: str
    engine_id: str
    ttft_s: float
    censored: bool
    model_version: int | None
    predicted_ttft_s: float
    schema_version: int
    row_id: int


_encoder = msgspec.msgpack.Encoder()
_rows_decoder = msgspec.msgpack.Decoder(list[_Row])
_report_decoder = msgspec.msgpack.Decoder(dict[str, Any])


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    """One frame, ready to write."""
    return _HEAD.pack(len(payload) + 1, kind) + payload


class FrameReader:
    """Bytes in, whole frames out; does no I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, bytes]]:
        """Add bytes read; yields the frames they complete."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            length, number = _HEAD.unpack_from(self._buffer)
            kind = _KINDS.get(number)
            if not 1 <= length <= MAX_FRAME_BYTES or kind is None:
                raise WireError(f"not a frame: length {length}, kind {number}")
            end = _HEAD.size - 1 + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield kind, payload


def encode_rows(rows: Sequence[TrainingRow]) -> bytes:
    """The payload of a ROWS frame."""
    return _encoder.encode(
        [
            _Row(
                row.features.astype("<f4", copy=False).tobytes(),
                row.work_tokens,
                row.gpu,
                row.engine_id,
                row.ttft_s,
                row.censored,
                row.model_version,
                row.predicted_ttft_s,
                row.schema_version,
                row.row_id,
            )
            for row in rows
        ]
    )


def decode_rows(payload: bytes) -> list[TrainingRow]:
    """The inverse of encode_rows."""
    try:
        return [
            TrainingRow(
                features=np.frombuffer(row.features, dtype="<f4").astype(np.float32),
                work_tokens=row.work_tokens,
                gpu=row.gpu,
                engine_id=EngineId(row.engine_id),
                ttft_s=row.ttft_s,
                censored=row.censored,
                model_version=row.model_version,
                predicted_ttft_s=row.predicted_ttft_s,
                schema_version=row.schema_version,
                row_id=row.row_id,
            )
            for row in _rows_decoder.decode(payload)
        ]
    except (msgspec.MsgspecError, ValueError) as error:
        raise WireError(f"malformed rows: {error}") from error


def encode_report(report: object) -> bytes:
    """The payload of a REPORT frame, from a dataclass."""
    return _encoder.encode(report)


def decode_report(payload: bytes) -> dict[str, Any]:
    """Field name -> value, as in learning.trainer.TrainReport."""
    try:
        return _report_decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise WireError(f"malformed report: {error}") from error
