from random import Random

import numpy as np
import pytest

from lodestar_router.core.types import FloatVector
from lodestar_router.features.schema import FEATURES, NUM_FEATURES
from lodestar_router.learning.replay import ReplayBuffer
from tests.features.models import row

PREFILL = [feature.name for feature in FEATURES].index("inflight_prefill_tokens")


def loaded(prefill_tokens: int) -> FloatVector:
    """Features of a request with that much prefill ahead."""
    features = np.zeros(NUM_FEATURES, dtype=np.float32)
    features[PREFILL] = np.log1p(prefill_tokens)
    return features


def filled(count: int, window: int, reservoir: int) -> ReplayBuffer:
    buffer = ReplayBuffer(Random(0), window, reservoir)
    for number in range(count):
        buffer.add(row(work_tokens=number))
    return buffer


def test_memory_is_bounded() -> None:
    assert len(filled(1000, window=10, reservoir=20)) == 30


def test_the_window_holds_the_newest_in_order() -> None:
    buffer = filled(100, window=10, reservoir=20)

    recent = buffer.take(buffer.recent())

    assert recent.work_tokens.tolist() == list(range(90, 100))
    assert recent.gpus == ("A30",)


def test_the_reservoir_samples_all_that_left_the_window() -> None:
    buffer = filled(4000, window=100, reservoir=500)

    older = buffer.take(buffer.older()).work_tokens

    assert len(set(older.tolist())) == 500
    assert older.max() < 3900
    assert older.mean() == pytest.approx(3900 / 2, rel=0.1)


def test_rare_loads_and_kinds_survive_calm_traffic() -> None:
    buffer = ReplayBuffer(Random(0), window_rows=10, reservoir_rows=300)
    for _ in range(100):
        buffer.add(row(loaded(50_000), ttft_s=9.0))
        buffer.add(row(loaded(100), gpu="V100"))
    for _ in range(10_000):
        buffer.add(row(loaded(100)))

    older = buffer.take(buffer.older())

    assert len(buffer) == 310
    assert (older.ttft_s == 9.0).sum() == 100
    assert (older.gpu == older.gpus.index("V100")).sum() == 100


def test_strata_share_the_reservoir_evenly_when_all_are_large() -> None:
    buffer = ReplayBuffer(Random(0), window_rows=10, reservoir_rows=90)
    for number in range(6000):
        buffer.add(row(loaded(30 if number % 20 else 20_000), gpu="A30", work_tokens=number))

    older = buffer.take(buffer.older())

    heavy = older.features[:, PREFILL] > 5
    assert (heavy.sum(), (~heavy).sum()) == (45, 45)
    assert older.work_tokens[heavy].mean() == pytest.approx(3000, rel=0.25), "of all times"


def test_a_label_takes_the_place_of_its_bound() -> None:
    buffer = ReplayBuffer(Random(0), window_rows=3, reservoir_rows=3)
    first = buffer.add(row(row_id=1, ttft_s=2.0, censored=True))
    buffer.add(row(row_id=2, ttft_s=5.0, censored=True))
    again = buffer.add(row(row_id=1, ttft_s=4.0, censored=True))
    label = buffer.add(row(row_id=1, ttft_s=4.5))

    recent = buffer.take(buffer.recent())

    assert (first, again, label) == (True, False, False)
    assert recent.ttft_s.tolist() == [4.5, 5.0]
    assert recent.censored.tolist() == [False, True]
    assert buffer.labelled(buffer.recent()).tolist() == buffer.recent()[:1].tolist()


def test_a_label_that_comes_when_its_bound_has_left_the_window_is_a_row_of_its_own() -> None:
    buffer = ReplayBuffer(Random(0), window_rows=2, reservoir_rows=3)
    buffer.add(row(row_id=1, censored=True))
    buffer.add(row(row_id=2))
    buffer.add(row(row_id=3))

    assert buffer.add(row(row_id=1))
    assert len(buffer) == 4
