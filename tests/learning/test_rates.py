import numpy as np
import pytest

from lodestar_router.features.rates import Rate, TtftRates
from lodestar_router.features.schema import NUM_FEATURES
from lodestar_router.learning.rates import fit_rates
from lodestar_router.learning.rows import RowBatch

PRIOR = TtftRates()


def sample(rate: Rate, rows: int, seed: int = 0) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(seed)
    tokens = rng.uniform(1, 8000, rows)
    ttft_s = (rate.t0_s + tokens * rate.s_per_token) * np.exp(rng.normal(0, 0.1, rows))
    return tokens.tolist(), ttft_s.tolist()


def fit(*parts: tuple[str, list[float], list[float]]) -> TtftRates:
    gpus = [gpu for gpu, tokens, _ in parts for _ in tokens]
    tokens = np.array([x for _, tokens, _ in parts for x in tokens])
    ttft_s = np.array([y for _, _, ttft_s in parts for y in ttft_s])
    kinds = tuple(dict.fromkeys(gpus))
    features = np.zeros((len(gpus), NUM_FEATURES), dtype=np.float32)
    gpu = np.array([kinds.index(each) for each in gpus], dtype=np.intp)
    return fit_rates(
        RowBatch(features, tokens, ttft_s, np.zeros(len(gpus), np.bool_), gpu, kinds), PRIOR
    )


def close(rate: Rate, wanted: Rate, rel: float) -> bool:
    return rate.t0_s == pytest.approx(wanted.t0_s, rel=6 * rel) and (
        rate.s_per_token == pytest.approx(wanted.s_per_token, rel=rel)
    )


def test_each_kind_gets_its_own_rates() -> None:
    a30, v100 = Rate(0.05, 2e-4), Rate(0.1, 9e-4)

    rates = fit(("A30", *sample(a30, 800)), ("V100", *sample(v100, 800, seed=1)))

    assert close(rates.of("A30"), a30, 0.05)
    assert close(rates.of("V100"), v100, 0.05)
    assert a30.s_per_token < rates.of("H100").s_per_token < v100.s_per_token


def test_a_tiny_fast_model_is_fitted_too() -> None:
    tiny = Rate(0.004, 1e-5)

    assert close(fit(("cpu", *sample(tiny, 500))).of("cpu"), tiny, 0.05)


def test_outliers_do_not_move_the_fit() -> None:
    rate = Rate(0.05, 2e-4)
    tokens, ttft_s = sample(rate, 500)
    stuck = [value * 50 if number % 10 == 0 else value for number, value in enumerate(ttft_s)]

    assert close(fit(("A30", tokens, stuck)).of("A30"), rate, 0.15)


def test_a_kind_with_few_rows_stays_near_the_fleet() -> None:
    fleet, odd = Rate(0.05, 2e-4), Rate(0.05, 20e-4)

    rates = fit(("A30", *sample(fleet, 800)), ("V100", *sample(odd, 3, seed=1)))

    assert 2e-4 < rates.of("V100").s_per_token < 8e-4


@pytest.mark.parametrize(
    ("tokens", "ttft_s"),
    [
        pytest.param([500.0] * 50, [0.2] * 50, id="one-length-only"),
        pytest.param([1.0] * 50, [1e-4] * 50, id="nothing-to-compute"),
        pytest.param([1.0, 1e6] * 25, [1e3, 1e-3] * 25, id="longer-is-faster"),
        pytest.param([1e9] * 50, [1e-3] * 50, id="absurd"),
    ],
)
def test_rates_stay_positive_and_finite(tokens: list[float], ttft_s: list[float]) -> None:
    rate = fit(("A30", tokens, ttft_s)).of("A30")

    assert 1e-5 < rate.t0_s < 11
    assert 0 < rate.s_per_token < 0.2


def test_without_rows_the_prior_stays() -> None:
    assert fit() is PRIOR
