"""PublishedModel <-> bytes, for the pipe from the trainer and for the checkpoint.

    magic | header length, uint32 | header, JSON | float32 arrays, end to end | SHA-256

The header names versions, rates, spreads and the shape of every array; the digest covers
everything before it. Little-endian throughout. Nothing in it is executable.

Errors   ModelFormatError for anything else: truncated, altered, another schema.
"""

import hashlib
import json
import math
import struct
from typing import Any

import numpy as np

from lodestar_router.core.types import FloatMatrix, FloatVector
from lodestar_router.features.rates import Rate, TtftRates
from lodestar_router.features.scaling import Scaler
from lodestar_router.features.serving import ModelFormatError, PublishedModel

MAGIC = b"lodestar-model-2\n"
_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = 32


def encode_model(model: PublishedModel) -> bytes:
    """The model as one self-describing, self-checking byte string."""
    arrays = [model.scaler.mean, model.scaler.std]
    for weight, bias in model.layers:
        arrays += [weight, bias]
    header = json.dumps(
        {
            "version": model.version,
            "schema_version": model.schema_version,
            "trusted": model.trusted,
            "pooled": [model.rates.pooled.t0_s, model.rates.pooled.s_per_token],
            "by_gpu": {gpu: [r.t0_s, r.s_per_token] for gpu, r in model.rates.by_gpu.items()},
            "spread": dict(model.spread),
            "shapes": [array.shape for array in arrays],
        }
    ).encode()
    body = b"".join(array.astype("<f4").tobytes() for array in arrays)
    data = MAGIC + _LENGTH.pack(len(header)) + header + body
    return data + hashlib.sha256(data).digest()


def decode_model(data: bytes) -> PublishedModel:
    """The inverse of encode_model."""
    if not data.startswith(MAGIC):
        raise ModelFormatError("not a lodestar model")
    content, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise ModelFormatError("truncated or altered: the digest does not match")
    start = len(MAGIC) + _LENGTH.size
    try:
        (length,) = _LENGTH.unpack_from(content, len(MAGIC))
        header = json.loads(content[start : start + length])
        return _build(header, content[start + length :])
    except ModelFormatError:
        raise
    except (struct.error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"malformed model: {error!r}") from error


def _build(header: dict[str, Any], body: bytes) -> PublishedModel:
    mean, std, *parts = _arrays(header["shapes"], body)
    return PublishedModel(
        version=int(header["version"]),
        schema_version=int(header["schema_version"]),
        trusted=bool(header["trusted"]),
        rates=TtftRates(
            _rate(header["pooled"]), {gpu: _rate(pair) for gpu, pair in header["by_gpu"].items()}
        ),
        scaler=Scaler(mean, std),
        spread={gpu: float(spread) for gpu, spread in header["spread"].items()},
        layers=tuple(zip(parts[::2], parts[1::2], strict=True)),
    )


def _arrays(shapes: list[list[int]], body: bytes) -> list[FloatMatrix | FloatVector]:
    values = np.frombuffer(body, dtype="<f4").astype(np.float32)
    arrays = []
    for shape in shapes:
        size = math.prod(shape)
        arrays.append(values[:size].reshape(shape))
        values = values[size:]
    if values.size:
        raise ModelFormatError(f"{values.size} values more than the header names")
    return arrays


def _rate(pair: list[float]) -> Rate:
    t0_s, s_per_token = pair
    if not (math.isfinite(t0_s) and math.isfinite(s_per_token) and t0_s > 0 and s_per_token >= 0):
        raise ModelFormatError(f"a rate is out of range: {pair}")
    return Rate(t0_s, s_per_token)
