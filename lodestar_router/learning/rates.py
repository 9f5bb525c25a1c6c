"""Fitting the base: t0 and seconds per token, per GPU kind.

    minimise  sum Huber(ln y - ln(t0 + x * s))  +  strength * |(ln t0, ln s) - prior|^2

over ln t0 and ln s, so both stay positive. Errors are relative, because a TTFT
of 10 s must not outweigh a hundred of 50 ms; Huber, because a request that was
stuck behind something unseen says nothing about prefill speed. The pooled rate
is drawn a little to the prior, each kind's rate more to the pooled one: a kind
with three rows stays near its fleet, one with thousands does not notice.

In       uncached tokens ahead (x, own included), TTFT in seconds (y), GPU kinds.
Out      TtftRates.
Cost     20 passes over the rows, 10 ms for 4,000.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lodestar_router.features.rates import Rate, TtftRates

FloatArray = npt.NDArray[np.float64]

POOLED_STRENGTH = 1.0  # rows' worth of belief in the prior
KIND_STRENGTH = 8.0  # rows' worth of belief that a kind is like the fleet
_HUBER = 0.3  # ln: errors beyond 35 % lose weight
_LOW = np.log([1e-4, 1e-8])  # s, s per token: below any engine
_HIGH = np.log([10.0, 0.1])  # above any engine worth routing to
_ITERATIONS = 20
_CONVERGED = 1e-4


def fit_rates(
    tokens: FloatArray, ttft_s: FloatArray, gpus: Sequence[str], prior: TtftRates
) -> TtftRates:
    """Refit all rates; kinds without rows keep the prior's."""
    if not len(ttft_s):
        return prior
    pooled = _fit(tokens, ttft_s, prior.pooled, POOLED_STRENGTH)
    by_gpu = dict(prior.by_gpu)
    kinds = np.asarray(gpus)
    for gpu in sorted(set(gpus)):
        rows = kinds == gpu
        by_gpu[gpu] = _fit(tokens[rows], ttft_s[rows], pooled, KIND_STRENGTH)
    return TtftRates(pooled, by_gpu)


def _fit(tokens: FloatArray, ttft_s: FloatArray, prior: Rate, strength: float) -> Rate:
    """Gauss-Newton on (ln t0, ln s) with Huber weights; steps of a factor e at most."""
    centre = np.log([prior.t0_s, max(prior.s_per_token, 1e-8)])
    point = centre.copy()
    target = np.log(ttft_s)
    for _ in range(_ITERATIONS):
        t0_s, s_per_token = np.exp(point)
        predicted_s = t0_s + tokens * s_per_token
        error = target - np.log(predicted_s)
        weight = np.minimum(1.0, _HUBER / np.maximum(np.abs(error), 1e-12))
        share = t0_s / predicted_s
        slopes = np.stack([share, 1.0 - share])  # [2, rows]: d ln(predicted) / d point
        weighted = slopes * weight
        curvature = weighted @ slopes.T + strength * np.eye(2)
        step = np.linalg.solve(curvature, weighted @ error + strength * (centre - point))
        step = np.clip(step, -1.0, 1.0)
        point = np.clip(point + step, _LOW, _HIGH)
        if np.abs(step).max() < _CONVERGED:
            break
    t0_s, s_per_token = np.exp(point)
    return Rate(float(t0_s), float(s_per_token))
