"""A step-time model fitted to an engine that was measured.

    seconds = step + per_chunk * prefills + per_token * prefill tokens + per_pair * pairs
            + per_decode * decodes + per_kv_token * KV tokens that decodes read

    pairs of query and key, of a prefill = new tokens * (context + new tokens / 2)

In       StepSample: the shape of a step, and how long it took.
Out      LinearStepTime, the emulator's StepTime.
Cost     microseconds per step.
Errors   ValueError when there are fewer samples than coefficients.

Least squares of relative errors, with no coefficient below 0: a cost that the
samples would make negative is left out and the others are fitted again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Chunks = Sequence[tuple[int, int]]  # (new tokens, context tokens) of each prefill


@dataclass(frozen=True, slots=True)
class LinearStepTime:
    """See the module; all in seconds."""

    step_s: float
    per_chunk_s: float
    per_token_s: float
    per_pair_s: float
    per_decode_s: float
    per_kv_token_s: float

    def seconds(self, chunks: Chunks, decodes: int, decode_kv_tokens: int) -> float:
        """See StepTime."""
        new_tokens, pairs = _sizes(chunks)
        return (
            self.step_s
            + self.per_chunk_s * len(chunks)
            + self.per_token_s * new_tokens
            + self.per_pair_s * pairs
            + self.per_decode_s * decodes
            + self.per_kv_token_s * decode_kv_tokens
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSample:
    """One kind of step, measured."""

    chunks: Chunks
    decodes: int
    decode_kv_tokens: int
    seconds: float


def fit(samples: Sequence[StepSample]) -> LinearStepTime:
    """The model that is closest to the samples."""
    shapes = np.array([_shape(sample) for sample in samples])
    seconds = np.array([sample.seconds for sample in samples])
    if len(samples) < shapes.shape[1]:
        raise ValueError(f"{len(samples)} samples cannot determine {shapes.shape[1]} coefficients")
    # Divided by what was measured: a fast step's percent counts as a slow one's.
    relative = shapes / seconds[:, None]
    largest = np.maximum(relative.max(axis=0), 1e-30)  # columns are of very different size
    kept = list(range(shapes.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(
            relative[:, kept] / largest[kept], np.ones(len(samples)), rcond=None
        )
        if (found >= 0.0).all():
            break
        kept.pop(int(found.argmin()))
    coefficients = np.zeros(shapes.shape[1])
    coefficients[kept] = found / largest[kept]
    return LinearStepTime(*coefficients.tolist())


def errors(model: LinearStepTime, samples: Sequence[StepSample]) -> list[float]:
    """(model - measured) / measured, per sample."""
    return [
        model.seconds(s.chunks, s.decodes, s.decode_kv_tokens) / s.seconds - 1.0 for s in samples
    ]


def _shape(sample: StepSample) -> tuple[float, ...]:
    """In the order of LinearStepTime's fields."""
    new_tokens, pairs = _sizes(sample.chunks)
    return (
        1.0, len(sample.chunks), new_tokens, pairs, sample.decodes, sample.decode_kv_tokens,
    )  # fmt: skip


def _sizes(chunks: Chunks) -> tuple[int, float]:
    """(new tokens, query-key pairs) of all prefills together."""
    new_tokens, pairs = 0, 0.0
    for new, context in chunks:
        new_tokens += new
        pairs += new * (context + 0.5 * new)
    return new_tokens, pairs
