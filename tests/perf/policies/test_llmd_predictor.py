"""llm-d's predictor: features, window, ensemble."""

from collections.abc import Sequence

import numpy as np
import pytest

from lodestar_router.core.types import FloatMatrix, FloatVector
from perf.routing.policies import llmd_predictor
from perf.routing.policies.llmd_predictor import (
    FEATURES,
    Predict,
    TtftPredictor,
    feature_rows,
    xgboost_fit,
)
from tests.factories import candidate, load, request


class MeanFit:
    """Predicts the mean; remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[FloatMatrix, list[float], list[str]]] = []

    def __call__(self, rows: FloatMatrix, targets: FloatVector, names: Sequence[str]) -> Predict:
        self.given.append((rows, targets.tolist(), list(names)))
        mean = float(targets.mean())
        return lambda asked: np.full(len(asked), mean, dtype=np.float32)


def row(waiting: int = 0, kv_usage_ratio: float = 0.0, cached: int = 0) -> FloatVector:
    engine = candidate(
        cached_prefix_tokens=cached,
        load=load(num_waiting_reqs=waiting, kv_cache_usage_ratio=kv_usage_ratio),
    )
    vector: FloatVector = feature_rows(request(prompt_tokens=1600), [engine])[0]
    return vector


def fill(predictor: TtftPredictor, count: int, vector: FloatVector, ttft_s: float) -> None:
    for number in range(count):
        predictor.add(f"r{number}", vector, ttft_s)


def test_features_by_name() -> None:
    engine = candidate(
        cached_prefix_tokens=815,
        load=load(num_waiting_reqs=2, kv_cache_usage_ratio=0.5, num_running_reqs=9),
        inflight_requests=4,
        inflight_prefill_tokens=700,
        block_size_tokens=16,
    )

    rows = feature_rows(request(prompt_tokens=1607), [engine, candidate()])

    # 50 whole blocks of 100 are cached.
    assert dict(zip(FEATURES, rows[0].tolist(), strict=True)) == {
        "is_queued": 1.0,
        "kv_cache_percentage": 0.5,
        "input_token_length": 1607.0,
        "num_request_waiting": 2.0,
        "num_request_running": 4.0,
        "prefill_tokens_in_flight": 700.0,
        "decode_tokens_in_flight": 0.0,
        "encoder_matched_size": 0.0,
        "encoder_input_size": 0.0,
        "prefix_cache_score": 0.5,
        "effective_input_tokens": 803.5,
        "prefill_score_bucket": 2.0,
        "pod_type": 0.0,
    }
    assert rows[1].tolist() == [0, 0, 1607, 0, 0, 0, 0, 0, 0, 0, 1607, 0, 0]


def test_a_window_of_fewer_than_100_rows_makes_no_model() -> None:
    predictor = TtftPredictor(MeanFit())
    fill(predictor, 100, row(), 1.0)  # about a tenth is held out

    assert predictor.fitted() is None


def test_targets_are_milliseconds_and_a_tenth_is_held_out() -> None:
    fit = MeanFit()
    predictor = TtftPredictor(fit)
    for bucket in range(5):
        fill(predictor, 400, row(kv_usage_ratio=bucket / 10), 0.25)

    predictor.fitted()

    ((_, targets, names),) = fit.given
    assert set(targets) == {250.0}
    assert 1750 < len(targets) < 1850
    assert names == list(FEATURES)


def test_each_bucket_keeps_its_latest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llmd_predictor, "ROWS_PER_BUCKET", 50)
    monkeypatch.setattr(llmd_predictor, "MIN_ROWS", 1)
    fit = MeanFit()
    predictor = TtftPredictor(fit)
    fill(predictor, 100, row(), 1.0)
    fill(predictor, 100, row(), 2.0)
    fill(predictor, 20, row(cached=800), 3.0)
    fill(predictor, 20, row(kv_usage_ratio=0.05), 4.0)

    predictor.fitted()

    targets = fit.given[0][1]
    assert targets.count(2000.0) == 50
    assert targets.count(1000.0) == 0
    assert targets.count(3000.0) == targets.count(4000.0) > 15


def test_rows_with_and_without_a_queue_get_models_of_their_own() -> None:
    fit = MeanFit()
    predictor = TtftPredictor(fit)
    fill(predictor, 300, row(), 1.0)
    for waiting in (1, 4, 8, 20):
        fill(predictor, 80, row(waiting), 5.0)

    model = predictor.fitted()

    assert model is not None
    assert model(np.array([row(0), row(3), row(0)])).tolist() == [1000.0, 5000.0, 1000.0]
    assert model(np.array([row(9)])).tolist() == [5000.0]
    plain_names = fit.given[0][2]
    assert set(FEATURES) - set(plain_names) == {"is_queued", "num_request_waiting"}
    assert fit.given[0][0].shape[1] == len(FEATURES) - 2


def test_the_trees_learn_and_repeat() -> None:
    pytest.importorskip("xgboost")
    rng = np.random.default_rng(0)
    rows = rng.random((600, len(FEATURES))).astype(np.float32)
    rows[:, 11:] = rng.integers(0, 4, (600, 2))
    targets = (rows[:, 1] * 1000 + rows[:, 11] * 200).astype(np.float32)

    model, again = (xgboost_fit(rows, targets, FEATURES) for _ in range(2))

    error = np.abs(model(rows[:50]) - targets[:50]).mean()
    assert error < 50
    assert (model(rows) == again(rows)).all()
