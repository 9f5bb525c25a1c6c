"""The price of delaying others: nothing when nobody waits, most where most is coming."""

from random import Random

import pytest

from lodestar_router.policy.congestion import KAPPA, MEMORY_S, CongestionPrice
from lodestar_router.policy.lodestar import LodestarPolicy
from tests.factories import candidate, request


def test_a_fleet_where_nobody_waits_has_no_price() -> None:
    price = CongestionPrice()
    idle = candidate("a")

    for second in range(100):
        price.sent(idle, 0.5, float(second))

    assert price.wait_probability == 0.0
    assert price.prices_s([idle], [0.5], [0.5], [1e-3], 100.0) == [0.0]


def test_the_price_is_the_formula() -> None:
    price = CongestionPrice()
    busy = candidate("a", inflight_prefill_tokens=1000)
    for _ in range(30):
        price.sent(busy, 0.2, 5.0)

    (charged,) = price.prices_s([busy], [0.3], [0.1], [1e-3], 5.0)

    arrivals_per_s, busy_ratio, drain_s = 30 / MEMORY_S, 30 * 0.2 / MEMORY_S, 1000 * 1e-3 + 0.1
    assert price.wait_probability == 1.0
    assert charged == pytest.approx(KAPPA * 0.1 * arrivals_per_s * drain_s / (1 - busy_ratio))


def test_what_was_sent_fades_and_is_forgotten() -> None:
    price = CongestionPrice()
    busy = candidate("a", inflight_prefill_tokens=1000)
    price.sent(busy, 0.2, 0.0)

    now, later = (
        price.prices_s([busy], [0.3], [0.1], [1e-3], at_s)[0] for at_s in (0.0, 2 * MEMORY_S)
    )
    price.sent(candidate("b"), 0.1, 1000.0)

    assert later == pytest.approx(now * 0.1353 * (1 - 0.2 / MEMORY_S), rel=1e-2)
    assert price.prices_s([busy], [0.3], [0.1], [1e-3], 1000.0) == [0.0]


def test_a_busy_fleet_keeps_to_its_caches_where_greed_would_spread() -> None:
    policy = LodestarPolicy(Random(0))
    warm = candidate("a", cached_prefix_tokens=3000, inflight_prefill_tokens=3500)
    cold = candidate("b", inflight_prefill_tokens=400)
    asked = request(prompt_tokens=4000)

    first = policy.choose(asked, [warm, cold])
    for _ in range(100):
        policy.choose(asked, [candidate("a", inflight_prefill_tokens=3500)])
        policy.choose(asked, [candidate("b", inflight_prefill_tokens=3500)])
    then = policy.choose(asked, [warm, cold])

    assert (first.engine_id, first.reason) == ("b", "load")
    assert (then.engine_id, then.reason) == ("a", "price")
    assert then.costs[0] > first.costs[0]
