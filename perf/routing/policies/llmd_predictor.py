"""llm-d's TTFT predictor: gradient-boosted trees, refitted on a bucketed window.

In       feature rows as scored, and TTFTs as they become known.
Out      predicted TTFT in milliseconds per row; None before the first model.
Cost     a refit about 0.15 s per 1,000 rows in the window and sub-model; a prediction
         for 16 rows about 0.5 ms.
Errors   ImportError without the package `xgboost-cpu` (extra `bench`).
Source   llm-d/llm-d-latency-predictor training_server.py at 04e44cd, with Helm's
         objective, interval and minimum; TTFT targets in milliseconds, as the trees'
         `gamma` and `reg_*` have the target's unit.

    window    400 buckets = 5 of waiting requests x 20 of KV usage x 4 of prefix match,
              the latest 500 rows each; rows never age out otherwise
    test set  a tenth of all rows, by hash; it is only reported there, so it is dropped
    refit     from nothing every 10 s, once the window has 100 rows; no gate before use
    ensemble  separate models for rows without and with waiting requests, the former
              without the two queue columns, once both have 200 rows

Kept: the columns that are always 0 there, as they take part in column sampling.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Final
from zlib import crc32

import numpy as np

from lodestar_router.core.types import Candidate, FloatMatrix, FloatVector, RoutedRequest

FEATURES: Final = (
    "is_queued",
    "kv_cache_percentage",  # 0..1 there too
    "input_token_length",
    "num_request_waiting",
    "num_request_running",  # the router's own count of requests in flight
    "prefill_tokens_in_flight",
    "decode_tokens_in_flight",  # always 0
    "encoder_matched_size",  # always 0: text only
    "encoder_input_size",  # always 0
    "prefix_cache_score",
    "effective_input_tokens",
    "prefill_score_bucket",  # categorical
    "pod_type",  # categorical, always the same: no disaggregation
)
_WAITING, _KV_USAGE, _PREFIX = 3, 1, 9  # columns
_QUEUE_COLUMNS = (0, 3)
_CATEGORICAL = frozenset({"prefill_score_bucket", "pod_type"})

MIN_ROWS = 100
MIN_ROWS_PER_SPLIT = 200
ROWS_PER_BUCKET = 500
TEST_PERCENT = 10
KV_BUCKETS, PREFIX_BUCKETS = 20, 4
_QUEUE_BOUNDS = (0, 2, 5, 10)  # the largest number of waiting requests of each bucket
_BLOCK_SIZE_TOKENS = 16  # of an engine that did not say

TREES = 200
PARAMETERS: Final = {
    "objective": "reg:squarederror",
    "max_depth": 6,
    "learning_rate": 0.05,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "min_child_weight": 5,
    "gamma": 0.2,
    "reg_alpha": 0.01,
    "reg_lambda": 0.1,
    "tree_method": "hist",
    "seed": 42,
    "nthread": 1,  # cells run in parallel; the result does not depend on it
}

Predict = Callable[[FloatMatrix], FloatVector]
Fit = Callable[[FloatMatrix, FloatVector, Sequence[str]], Predict]
"""(rows [n, columns], targets [n], names of the columns) -> a model."""


def xgboost_fit(rows: FloatMatrix, targets: FloatVector, names: Sequence[str]) -> Predict:
    """The trees of the predictor."""
    import xgboost

    kinds = ["c" if name in _CATEGORICAL else "float" for name in names]
    data = xgboost.DMatrix(rows, targets, feature_types=kinds, enable_categorical=True, nthread=1)
    booster = xgboost.train(PARAMETERS, data, TREES)

    def predict(asked: FloatMatrix) -> FloatVector:
        return np.asarray(booster.inplace_predict(asked), dtype=np.float32)

    return predict


def prefix_score(request: RoutedRequest, candidate: Candidate) -> float:
    """0..1: whole cached blocks of the prompt's whole blocks; 0 if it has none."""
    size = candidate.engine.block_size_tokens or _BLOCK_SIZE_TOKENS
    blocks = request.prompt_tokens // size
    return min(candidate.cached_prefix_tokens // size / blocks, 1.0) if blocks else 0.0


def feature_rows(request: RoutedRequest, candidates: Sequence[Candidate]) -> FloatMatrix:
    """float32 [candidates, FEATURES]; an engine that never reported counts as empty."""
    rows = np.zeros((len(candidates), len(FEATURES)), dtype=np.float32)
    for row, candidate in zip(rows, candidates, strict=True):
        engine, load = candidate.engine, candidate.engine.load
        waiting = 0 if load is None else load.num_waiting_reqs
        score = prefix_score(request, candidate)
        row[:] = (
            waiting > 0,
            0.0 if load is None else load.kv_cache_usage_ratio,
            request.prompt_tokens,
            waiting,
            engine.inflight_requests,
            engine.inflight_prefill_tokens,
            0,
            0,
            0,
            score,
            (1.0 - score) * request.prompt_tokens,
            _bucket(score, PREFIX_BUCKETS),
            0,
        )
    return rows


class TtftPredictor:
    """The window, and the models last fitted to it."""

    def __init__(self, fit: Fit = xgboost_fit) -> None:
        self._fit = fit
        self._window: defaultdict[tuple[int, int, int], deque[tuple[FloatVector, float]]]
        self._window = defaultdict(lambda: deque(maxlen=ROWS_PER_BUCKET))

    def add(self, request_id: str, row: FloatVector, ttft_s: float) -> None:
        """A label; a tenth of them, by request, is kept from training."""
        if crc32(request_id.encode()) % 100 >= TEST_PERCENT and ttft_s > 0.0:
            self._window[_key(row)].append((row, ttft_s * 1000.0))

    def fitted(self) -> Predict | None:
        """A model of the window as it is: predicted TTFT in ms; None if it is too small."""
        plain = [entry for key, rows in self._window.items() if key[0] == 0 for entry in rows]
        queued = [entry for key, rows in self._window.items() if key[0] > 0 for entry in rows]
        if len(plain) + len(queued) < MIN_ROWS:
            return None
        if min(len(plain), len(queued)) < MIN_ROWS_PER_SPLIT:
            return self._fit_all(plain + queued, range(len(FEATURES)))
        columns = [index for index in range(len(FEATURES)) if index not in _QUEUE_COLUMNS]
        return _gated(
            self._fit_all(plain, columns), self._fit_all(queued, range(len(FEATURES))), columns
        )

    def _fit_all(
        self, entries: Sequence[tuple[FloatVector, float]], columns: Sequence[int]
    ) -> Predict:
        rows = np.array([row for row, _ in entries], dtype=np.float32)[:, list(columns)]
        targets = np.array([ttft_ms for _, ttft_ms in entries], dtype=np.float32)
        return self._fit(rows, targets, [FEATURES[index] for index in columns])


def _gated(plain: Predict, queued: Predict, plain_columns: Sequence[int]) -> Predict:
    """Each row by the model of its queue."""
    columns = list(plain_columns)

    def predict(rows: FloatMatrix) -> FloatVector:
        waiting = rows[:, _WAITING] > 0
        predicted = np.empty(len(rows), dtype=np.float32)
        if waiting.any():
            predicted[waiting] = queued(rows[waiting])
        if not waiting.all():
            predicted[~waiting] = plain(rows[~waiting][:, columns])
        return predicted

    return predict


def _key(row: FloatVector) -> tuple[int, int, int]:
    queue = sum(float(row[_WAITING]) > bound for bound in _QUEUE_BOUNDS)
    return (
        queue,
        _bucket(float(row[_KV_USAGE]), KV_BUCKETS),
        _bucket(float(row[_PREFIX]), PREFIX_BUCKETS),
    )


def _bucket(ratio: float, buckets: int) -> int:
    return min(int(min(max(ratio, 0.0), 1.0) * buckets), buckets - 1)
