"""Fitting the base: t0 and seconds per token, per GPU kind.

    minimise  sum Huber(ln y - ln(t0 + x * s))  +  strength * |(ln t0, ln s) - prior|^2

over ln t0 and ln s, so both stay positive. Errors are relative, because a TTFT
of 10 s must not outweigh a hundred of 50 ms; Huber, because a request that was
stuck behind something unseen says nothing about prefill speed. The pooled rate
is drawn a little to the prior, each kind's rate more to the pooled one: a kind
with three rows stays near its fleet, one with thousands does not notice.

In       rows: uncached tokens ahead (x, own included), TTFT (y), GPU kind. A lower bound
         of TTFT counts only while the prediction is below it.
Out      TtftRates.
Cost     20 passes over the rows at most, 2 ms for 4,000.
"""

import numpy as np

from lodestar_router.features.rates import Rate, TtftRates
from lodestar_router.learning.rows import BoolArray, FloatArray, RowBatch

POOLED_STRENGTH = 1.0  # rows' worth of belief in the prior
KIND_STRENGTH = 8.0  # rows' worth of belief that a kind is like the fleet
_HUBER = 0.3  # ln: errors beyond 35 % lose weight
_LOW = np.log([1e-4, 1e-8])  # s, s per token: below any engine
_HIGH = np.log([10.0, 0.1])  # above any engine worth routing to
_ITERATIONS = 20
_CONVERGED = 1e-4


def fit_rates(rows: RowBatch, prior: TtftRates) -> TtftRates:
    """Refit all rates; kinds without rows keep the prior's."""
    tokens, log_ttft = rows.work_tokens, np.log(rows.ttft_s)
    if not len(tokens):
        return prior
    pooled = _fit(tokens, log_ttft, rows.censored, prior.pooled, POOLED_STRENGTH)
    by_gpu = dict(prior.by_gpu)
    for index, gpu in enumerate(rows.gpus):
        of_kind = rows.gpu == index
        if of_kind.any():
            by_gpu[gpu] = _fit(
                tokens[of_kind], log_ttft[of_kind], rows.censored[of_kind], pooled, KIND_STRENGTH
            )
    return TtftRates(pooled, by_gpu)


def _fit(
    tokens: FloatArray, target: FloatArray, censored: BoolArray, prior: Rate, strength: float
) -> Rate:
    """Gauss-Newton on (ln t0, ln s) with Huber weights; steps of a factor e at most."""
    centre = np.log([prior.t0_s, max(prior.s_per_token, 1e-8)])
    point = centre.copy()
    belief = strength * np.eye(2)
    for _ in range(_ITERATIONS):
        t0_s, s_per_token = np.exp(point)
        predicted_s = t0_s + tokens * s_per_token
        error = target - np.log(predicted_s)
        weight = _HUBER / np.maximum(np.abs(error), _HUBER)
        weight[censored & (error < 0)] = 0.0
        # d ln(predicted) / d point is (share, 1 - share), so three sums give the curvature.
        share = t0_s / predicted_s
        weighted = weight * share
        total, first, both = weight.sum(), weighted.sum(), weighted @ share
        slope_t0, slope = weighted @ error, weight @ error
        curvature = np.array([[both, first - both], [first - both, total - 2 * first + both]])
        gradient = np.array([slope_t0, slope - slope_t0]) + strength * (centre - point)
        step = np.linalg.solve(curvature + belief, gradient)
        step = np.minimum(np.maximum(step, -1.0), 1.0)
        point = np.minimum(np.maximum(point + step, _LOW), _HIGH)
        if np.abs(step).max() < _CONVERGED:
            break
    t0_s, s_per_token = np.exp(point)
    return Rate(float(t0_s), float(s_per_token))
