import math

import numpy as np
import pytest

from lodestar_router.core.types import Candidate, FloatVector, PrefixViewKind
from lodestar_router.features.encode import encode
from lodestar_router.features.schema import FEATURES, LOG_BASE, NUM_LOG1P
from tests.factories import candidate, load, request

COLUMN = {feature.name: index for index, feature in enumerate(FEATURES)}


def base(count: int, seconds: float = 0.5) -> FloatVector:
    return np.full(count, seconds, dtype=np.float32)


def busy(**load_fields: float) -> Candidate:
    return candidate(
        "a",
        cached_prefix_tokens=250,
        gpu="A30",
        prefix_view=PrefixViewKind.PARTIAL,
        load=load(observed_at_s=9.5, num_running_reqs=7, num_waiting_reqs=3,
                  kv_cache_usage_ratio=load_fields.get("usage", 0.75)),
        inflight_requests=9,
        inflight_prefill_requests=2,
        inflight_prefill_tokens=4000,
        inflight_computed_tokens=1000,
        inflight_decode_tokens=30_000,
        kv_blocks=1000,
        block_size_tokens=16,
        log_residual=0.3,
    )  # fmt: skip


def test_names_are_unique_and_logarithms_come_first() -> None:
    assert len(COLUMN) == len(FEATURES)
    assert all(feature.log1p == (i < NUM_LOG1P) for i, feature in enumerate(FEATURES))
    assert FEATURES[LOG_BASE].name == "log_base"


def test_every_column_holds_what_the_schema_says() -> None:
    row = encode(request(prompt_tokens=1000, now_s=10.0), [busy()], base(1))[0]

    expected = {
        "prompt_tokens": math.log1p(1000),
        "own_uncached_tokens": math.log1p(750),
        "cached_prefix_tokens": math.log1p(250),
        "inflight_prefill_tokens": math.log1p(4000),
        "inflight_prefill_requests": math.log1p(2),
        "inflight_decode_requests": math.log1p(7),
        "inflight_decode_tokens": math.log1p(30_000),
        "num_running_reqs": math.log1p(7),
        "num_waiting_reqs": math.log1p(3),
        "load_age_s": math.log1p(0.5),
        "kv_need_ratio": math.log1p(750 / 16 / 250),
        "cached_ratio": 0.25,
        "kv_cache_usage_ratio": 0.75,
        "load_reported": 1.0,
        "prefix_exact": 0.0,
        "prefix_partial": 1.0,
        "prefix_approximate": 0.0,
        "tokens_known": 1.0,
        "log_left": math.log(3750 / 4750),
        "log_base": math.log(0.5),
    }
    assert {name: row[i] for name, i in COLUMN.items()} == pytest.approx(expected, rel=1e-5)


def test_a_silent_engine_gets_the_defaults() -> None:
    row = encode(request(), [candidate("a", prefix_view=PrefixViewKind.NONE)], base(1))[0]

    for name in ("num_running_reqs", "load_age_s", "kv_need_ratio", "load_reported",
                 "kv_cache_usage_ratio", "prefix_exact", "prefix_approximate"):  # fmt: skip
        assert row[COLUMN[name]] == FEATURES[COLUMN[name]].default


@pytest.mark.parametrize("usage", [math.nan, math.inf, -math.inf, -3.0, 1e30])
def test_rubbish_reports_stay_finite(usage: float) -> None:
    matrix = encode(request(now_s=-5.0), [busy(usage=usage)], base(1))

    assert np.isfinite(matrix).all()


def test_the_identity_of_an_engine_changes_nothing() -> None:
    names = encode(request(), [candidate(name, log_residual=r) for name, r in
                               [("a", 0.0), ("b", 1.0)]], base(2))  # fmt: skip

    assert names.dtype == np.float32
    assert (names[0] == names[1]).all()
