"""(request, candidates, base_s) -> the matrix the model scores and learns from.

Out      float32 [candidates, features], columns as in schema.FEATURES, unscaled,
         always finite: a missing source gives the column's default.
Cost     one pass over the candidates; 0.03 ms for 16.

The same matrix is kept in the Decision and becomes the training row, so what is
served and what is learned cannot differ.
"""

import math
from collections.abc import Sequence

import numpy as np

from lodestar_router.core.types import (
    Candidate,
    EngineSnapshot,
    FloatMatrix,
    FloatVector,
    PrefixViewKind,
    RoutedRequest,
)
from lodestar_router.features.schema import NUM_FEATURES, NUM_LOG1P

_PREFIX_FLAGS: dict[PrefixViewKind, tuple[float, float, float]] = {
    PrefixViewKind.EXACT: (1.0, 0.0, 0.0),
    PrefixViewKind.PARTIAL: (0.0, 1.0, 0.0),
    PrefixViewKind.APPROXIMATE: (0.0, 0.0, 1.0),
    PrefixViewKind.NONE: (0.0, 0.0, 0.0),
}
# Beyond any real count; keeps ln(1 + x) finite whatever an engine reports.
_LARGEST = 1e12
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def encode(
    request: RoutedRequest, candidates: Sequence[Candidate], base_s: Sequence[float] | FloatVector
) -> FloatMatrix:
    """Encode every candidate; `base_s` is positive, one for each."""
    columns: list[float] = []
    for candidate, base in zip(candidates, base_s, strict=True):
        columns += _columns(request, candidate, math.log(base))
    matrix: FloatMatrix = np.array(columns, dtype=np.float32).reshape(-1, NUM_FEATURES)
    logged = matrix[:, :NUM_LOG1P]  # none is negative: see _columns
    np.log1p(logged, out=logged)
    return matrix


def _columns(request: RoutedRequest, candidate: Candidate, log_base: float) -> tuple[float, ...]:
    """Every column before ln(1 + x)."""
    engine = candidate.engine
    load = engine.load
    cached = candidate.cached_prefix_tokens
    uncached = max(1, request.prompt_tokens - cached)
    if load is None:
        running = waiting = age_s = usage = reported = 0.0
    else:
        running, waiting = load.num_running_reqs, load.num_waiting_reqs
        age_s, usage, reported = request.now_s - load.observed_at_s, load.kv_cache_usage_ratio, 1.0
    need_ratio = _kv_need_ratio(engine, uncached, usage)
    exact, partial, approximate = _PREFIX_FLAGS[engine.prefix_view]
    if not (
        0 <= running <= _LARGEST
        and 0 <= waiting <= _LARGEST
        and 0.0 <= age_s <= _LARGEST
        and 0.0 <= need_ratio <= _LARGEST
        and 0.0 <= usage <= 1.0
    ):  # a rubbish report (negative, NaN, infinite) must not reach the logarithm
        running, waiting = _count(running), _count(waiting)
        age_s, need_ratio, usage = _count(age_s), _count(need_ratio), _finite(usage)
    return (
        request.prompt_tokens,
        uncached,
        cached,
        engine.inflight_prefill_tokens,
        engine.inflight_prefill_requests,
        max(engine.inflight_requests - engine.inflight_prefill_requests, 0),
        engine.inflight_decode_tokens,
        running,
        waiting,
        age_s,
        need_ratio,
        cached / request.prompt_tokens,
        usage,
        reported,
        exact,
        partial,
        approximate,
        request.tokens_known,
        _log_left(engine, uncached),
        log_base,
    )


def _log_left(engine: EngineSnapshot, uncached_tokens: int) -> float:
    """How much less there is to compute than was sent, own tokens included: ln(left / all).

    What `log_base` is too high by, if prefill alone took the time that is foreseen for it.
    """
    computed = min(engine.inflight_computed_tokens, engine.inflight_prefill_tokens)
    if computed <= 0:
        return 0.0
    all_tokens = uncached_tokens + engine.inflight_prefill_tokens
    return math.log((all_tokens - computed) / all_tokens)


def _count(value: float) -> float:
    """What a rubbish report becomes in a column that is logged."""
    return 0.0 if math.isnan(value) else min(max(value, 0.0), _LARGEST)


def _finite(value: float) -> float:
    """What a rubbish report becomes in a column that is not logged."""
    if math.isnan(value) or value < -_FLOAT32_MAX:
        return 0.0
    return _LARGEST if value > _FLOAT32_MAX else value


def _kv_need_ratio(engine: EngineSnapshot, uncached_tokens: int, usage_ratio: float) -> float:
    """New blocks the prompt needs over blocks free; above 1 it has to wait for room."""
    if engine.kv_blocks is None or engine.block_size_tokens is None:
        return 0.0
    free_blocks = max(1.0, engine.kv_blocks * (1.0 - usage_ratio))
    return uncached_tokens / engine.block_size_tokens / free_blocks
