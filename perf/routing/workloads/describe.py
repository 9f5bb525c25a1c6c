"""Lengths, rate and reuse of a list of requests, to hold beside published figures.

`ideal_hit_ratio` is what one cache without end would find: tokens in leading blocks
that an earlier request had, over all prompt tokens, the last token left out as it
is always computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from perf.routing.workloads.base import Ask

_BLOCK_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Percentiles are of 25, 50, 75, 90 and 99 %, then the largest."""

    requests: int
    requests_per_s: float
    input_mean: float
    input_percentiles: tuple[float, ...]
    output_mean: float
    output_percentiles: tuple[float, ...]
    ideal_hit_ratio: float

    def __str__(self) -> str:
        inputs = " ".join(f"{value:.0f}" for value in self.input_percentiles)
        outputs = " ".join(f"{value:.0f}" for value in self.output_percentiles)
        return (
            f"{self.requests} requests, {self.requests_per_s:.2f}/s, "
            f"input {self.input_mean:.0f} ({inputs}), output {self.output_mean:.0f} ({outputs}), "
            f"ideal hits {self.ideal_hit_ratio:.3f}"
        )


def describe(plan: Sequence[Ask], block_tokens: int = _BLOCK_TOKENS) -> Description:
    """Later turns of sessions count, in the order of their sessions."""
    asks = [turn for ask in plan for turn in ask.turns()]
    inputs = np.array([len(ask.token_ids) for ask in asks], dtype=np.float64)
    outputs = np.array([ask.output_tokens for ask in asks], dtype=np.float64)
    span_s = plan[-1].at_s - plan[0].at_s if len(plan) > 1 else 0.0
    return Description(
        requests=len(asks),
        requests_per_s=len(asks) / span_s if span_s else inf,
        input_mean=float(inputs.mean()),
        input_percentiles=_percentiles(inputs),
        output_mean=float(outputs.mean()),
        output_percentiles=_percentiles(outputs),
        ideal_hit_ratio=_hits(asks, block_tokens) / max(float((inputs - 1).sum()), 1.0),
    )


def _percentiles(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, ...]:
    return tuple(np.percentile(values, [25, 50, 75, 90, 99, 100]).tolist())


def _hits(asks: Sequence[Ask], block_tokens: int) -> int:
    seen: set[int] = set()
    hits = 0
    for ask in asks:
        keys = ask.prompt.keys(block_tokens)[0]
        limit = ask.prompt.reusable_blocks(block_tokens)[0]
        depth = 0
        while depth < limit and keys[depth] in seen:
            depth += 1
        hits += depth * block_tokens
        seen.update(keys)
    return hits
