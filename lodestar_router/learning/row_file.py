"""Remembered rows on disk: the reservoir and the window, as arrays end to end.

    header length, uint32 | header, JSON | features, work_tokens, ttft_s, censored, gpu

Out      bytes, 110 for each row: 0.9 MB for full buffers.
Cost     2 ms to encode 8,192 rows, 60 ms to decode them.
Errors   CheckpointError for anything that is not such rows of this feature schema.
"""

import json
import struct
from collections.abc import Iterator

import numpy as np

from lodestar_router.core.types import EngineId
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.schema import NUM_FEATURES, SCHEMA_VERSION
from lodestar_router.learning.checkpoint import CheckpointError, seal, unseal
from lodestar_router.learning.rows import RowBatch

KIND = "rows-1"
_Rows = np.ndarray[tuple[int], np.dtype[np.void]]
_LENGTH = struct.Struct("<I")
_ROW = np.dtype(
    [
        ("features", "<f4", (NUM_FEATURES,)),
        ("work_tokens", "<f8"),
        ("ttft_s", "<f8"),
        ("censored", "?"),
        ("gpu", "<u4"),
    ]
)


def encode_row_file(older: RowBatch, recent: RowBatch) -> bytes:
    """Both, which name GPU kinds alike."""
    header = json.dumps(
        {"schema_version": SCHEMA_VERSION, "gpus": recent.gpus, "older": len(older.ttft_s)}
    ).encode()
    rows = np.concatenate([_packed(older), _packed(recent)])
    return seal(KIND, _LENGTH.pack(len(header)) + header + rows.tobytes())


def decode_row_file(data: bytes) -> tuple[list[TrainingRow], list[TrainingRow]]:
    """(older, recent)."""
    body = unseal(KIND, data)
    try:
        (length,) = _LENGTH.unpack_from(body)
        start = _LENGTH.size + length
        header = json.loads(body[_LENGTH.size : start])
        version = header["schema_version"]
        if version != SCHEMA_VERSION:
            raise CheckpointError(f"rows of feature schema {version}, not {SCHEMA_VERSION}")
        rows = list(_unpacked(np.frombuffer(body, _ROW, offset=start), header["gpus"]))
        older = int(header["older"])
    except (struct.error, KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(f"malformed rows: {error!r}") from error
    return rows[:older], rows[older:]


def _packed(batch: RowBatch) -> _Rows:
    rows = np.zeros(len(batch.ttft_s), _ROW)
    for name in _ROW.names or ():
        rows[name] = getattr(batch, name)
    return rows


def _unpacked(rows: _Rows, gpus: list[str]) -> Iterator[TrainingRow]:
    columns = (rows[name] for name in _ROW.names or ())
    for features, work_tokens, ttft_s, censored, gpu in zip(*columns, strict=True):
        yield TrainingRow(
            features=features.astype(np.float32),
            work_tokens=int(work_tokens),
            gpu=gpus[gpu],
            engine_id=EngineId(""),
            ttft_s=float(ttft_s),
            censored=bool(censored),
            model_version=None,
            predicted_ttft_s=0.0,  # judged when it came
            schema_version=SCHEMA_VERSION,
        )
