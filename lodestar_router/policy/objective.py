"""The cost of each candidate under each objective, in seconds; the lowest wins.

    ttft        ttft_i + price_i
    ttft_tail   ttft_i * exp(TAIL_DEVIATIONS * spread_i) + price_i
    e2e         ttft_i + price_i + output * tpot_i + others_i
    tpot        TPOT_TTFT_WEIGHT * (ttft_i + price_i) + output * tpot_i + others_i
    goodput     slo * (1 - kept_i) + GOODPUT_OTHERS_WEIGHT * (price_i + others_i * slo / answer_slo)

    ttft_i, price_i             lodestar.py, congestion.py
    output, tpot_i, others_i    features/decoding.py
    spread_i                    standard deviation of ln(observed / predicted TTFT)
    kept_i                      probability that TTFT and TPOT both stay within their limits,
                                taken as log-normal and independent
    slo, answer_slo             limit of TTFT; that of TPOT times `output`

In       predictions [candidates]; a forecast where the objective is in NEED_DECODING.
Out      float list [candidates].
"""

import math
from collections.abc import Sequence

from lodestar_router.core.goal import Goal, Objective
from lodestar_router.core.types import DecodeForecast

NEED_DECODING = frozenset({Objective.E2E, Objective.TPOT, Objective.GOODPUT})
TAIL_DEVIATIONS = 1.65  # the 95th percentile
# Without some weight on TTFT requests would queue for ever where decoding is fast.
TPOT_TTFT_WEIGHT = 0.3
# Most of those that are delayed still keep their limits.
GOODPUT_OTHERS_WEIGHT = 0.3


def objective_costs(
    goal: Goal,
    own_s: Sequence[float],
    prices_s: Sequence[float],
    spread: Sequence[float],
    forecast: DecodeForecast | None,
) -> list[float]:
    """Costs by the module's formulas."""
    ttft_costs = [own + price for own, price in zip(own_s, prices_s, strict=True)]
    if goal.objective is Objective.TTFT_TAIL:
        return [
            own * math.exp(TAIL_DEVIATIONS * deviation) + price
            for own, price, deviation in zip(own_s, prices_s, spread, strict=True)
        ]
    if forecast is None:
        return ttft_costs
    if goal.objective is Objective.GOODPUT:
        return _goodput_costs(goal, own_s, prices_s, spread, forecast)
    weight = TPOT_TTFT_WEIGHT if goal.objective is Objective.TPOT else 1.0
    return [
        weight * cost + forecast.output_tokens * tpot + others
        for cost, tpot, others in zip(ttft_costs, forecast.tpot_s, forecast.others_s, strict=True)
    ]


def _goodput_costs(
    goal: Goal,
    own_s: Sequence[float],
    prices_s: Sequence[float],
    spread: Sequence[float],
    forecast: DecodeForecast,
) -> list[float]:
    slo_s = goal.ttft_slo_s
    others_weight = slo_s / (forecast.output_tokens * goal.tpot_slo_s)
    costs: list[float] = []
    for own, price, deviation, tpot, tpot_deviation, others in zip(
        own_s,
        prices_s,
        spread,
        forecast.tpot_s,
        forecast.tpot_spread,
        forecast.others_s,
        strict=True,
    ):
        kept = _below(own, slo_s, deviation) * _below(tpot, goal.tpot_slo_s, tpot_deviation)
        delay = price + others * others_weight
        costs.append(slo_s * (1.0 - kept) + GOODPUT_OTHERS_WEIGHT * delay)
    return costs


def _below(predicted: float, limit: float, spread: float) -> float:
    """Probability that what was predicted stays below the limit."""
    deviations = math.log(limit / max(predicted, 1e-6)) / max(spread, 0.01)
    return 0.5 * math.erfc(-deviations / math.sqrt(2.0))
