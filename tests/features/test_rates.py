import pytest

from lodestar_router.features.rates import (
    DEFAULT_RATE,
    TtftRates,
    own_uncached_tokens,
    work_tokens,
)
from tests.factories import candidate, request
from tests.features.models import RATES


def test_a_kind_never_seen_has_the_pooled_rate() -> None:
    assert RATES.of("H100") == RATES.pooled
    assert RATES.of("V100") == RATES.by_gpu["V100"]
    assert TtftRates().of("A30") == DEFAULT_RATE


def test_the_base_counts_uncached_tokens_ahead_and_own() -> None:
    busy = candidate("a", cached_prefix_tokens=600, inflight_prefill_tokens=4000)

    ahead_tokens = work_tokens(request(prompt_tokens=1000), busy)

    assert ahead_tokens == 4400
    assert RATES.of("A30").base_s(ahead_tokens) == pytest.approx(0.02 + 4400 * 2e-4)


def test_the_last_token_is_always_computed() -> None:
    assert own_uncached_tokens(request(prompt_tokens=8), candidate(cached_prefix_tokens=8)) == 1
