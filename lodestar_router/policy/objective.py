"""The cost of each candidate under each objective, in seconds; the lowest wins.

    ttft        E(ttft_i^1.5) / long_ttft^0.5 + price_i
    ttft_tail   E(ttft_i^3) / long_ttft^2 + price_i
    e2e         ttft_i + price_i + output * tpot_i + others_i
    tpot        TPOT_TTFT_WEIGHT * (ttft_i + price_i) + output * tpot_i + others_i
    goodput     slo * (1 - kept_i) + GOODPUT_OTHERS_WEIGHT * (price_i + others_i * slo / answer_slo)

    ttft_i, price_i             lodestar.py, congestion.py
    E(ttft_i^n)                 ttft_i^n * exp(n^2 spread_i^2 / 2), log-normal around the prediction
    spread_i                    standard deviation of ln(observed / predicted TTFT)
    long_ttft                   what TAIL_SHARE of predicted TTFTs lately were above
    output, tpot_i, others_i    features/decoding.py
    kept_i                      probability that TTFT and TPOT both stay within their limits,
                                taken as log-normal and independent
    slo, answer_slo             limit of TTFT; that of TPOT times `output`

A power above 1 makes requests that wait little anyway give way, by the price, to those
that wait long: they go where their prefix is. In six cells of perf.routing, mostly near the
knee, one seed each and without the price of room, 2 and 1 had 1.03 and 1.02 times the mean
TTFT of 1.5; the cube gives some of the mean for P90 and P99.
A high quantile of ttft_i in its place changes nothing: engines are about equally
predictable, so it ranks them as the mean does.

In       predictions of every candidate.
Out      float list [candidates].
"""

import math
from collections.abc import Sequence

from msgspec import Struct

from lodestar_router.core.goal import Goal, Objective
from lodestar_router.core.types import DecodeForecast

NEED_DECODING = frozenset({Objective.E2E, Objective.TPOT, Objective.GOODPUT})
TAIL_SHARE = 0.05
_POWERS = {Objective.TTFT: 1.5, Objective.TTFT_TAIL: 3.0}
# Without some weight on TTFT requests would queue for ever where decoding is fast.
TPOT_TTFT_WEIGHT = 0.3
# Most of those that are delayed still keep their limits.
GOODPUT_OTHERS_WEIGHT = 0.3


class Prospects(Struct, frozen=True, kw_only=True):
    """What was predicted, lists [candidates]; see the module."""

    ttft_s: Sequence[float]
    prices_s: Sequence[float]
    spread: Sequence[float]
    long_ttft_s: float | None  # None: no request yet
    forecast: DecodeForecast | None  # not None where the objective is in NEED_DECODING


def objective_costs(goal: Goal, prospects: Prospects) -> list[float]:
    """Costs by the module's formulas."""
    power = _POWERS.get(goal.objective)
    if power is not None and prospects.long_ttft_s is not None:
        return _convex_costs(prospects, prospects.long_ttft_s, power)
    pairs = zip(prospects.ttft_s, prospects.prices_s, strict=True)
    ttft_costs = [ttft + price for ttft, price in pairs]
    forecast = prospects.forecast
    if forecast is None:
        return ttft_costs
    if goal.objective is Objective.GOODPUT:
        return _goodput_costs(goal, prospects, forecast)
    weight = TPOT_TTFT_WEIGHT if goal.objective is Objective.TPOT else 1.0
    return [
        weight * cost + forecast.output_tokens * tpot + others
        for cost, tpot, others in zip(ttft_costs, forecast.tpot_s, forecast.others_s, strict=True)
    ]


def _convex_costs(prospects: Prospects, long_ttft_s: float, power: float) -> list[float]:
    scale, half_square = long_ttft_s ** (1 - power), 0.5 * power * power
    # Engines of one kind have one spread, and there are few kinds.
    factors = {s: math.exp(half_square * s * s) for s in {*prospects.spread}}
    return [
        ttft**power * factors[spread] * scale + price
        for ttft, price, spread in zip(
            prospects.ttft_s, prospects.prices_s, prospects.spread, strict=True
        )
    ]


def _goodput_costs(goal: Goal, prospects: Prospects, forecast: DecodeForecast) -> list[float]:
    slo_s = goal.ttft_slo_s
    others_weight = slo_s / (forecast.output_tokens * goal.tpot_slo_s)
    costs: list[float] = []
    for ttft, price, spread, tpot, tpot_spread, others in zip(
        prospects.ttft_s,
        prospects.prices_s,
        prospects.spread,
        forecast.tpot_s,
        forecast.tpot_spread,
        forecast.others_s,
        strict=True,
    ):
        kept = _below(ttft, slo_s, spread) * _below(tpot, goal.tpot_slo_s, tpot_spread)
        delay = price + others * others_weight
        costs.append(slo_s * (1.0 - kept) + GOODPUT_OTHERS_WEIGHT * delay)
    return costs


def _below(predicted: float, limit: float, spread: float) -> float:
    """Probability that what was predicted stays below the limit."""
    deviations = math.log(limit / max(predicted, 1e-6)) / max(spread, 0.01)
    return 0.5 * math.erfc(-deviations / math.sqrt(2.0))
