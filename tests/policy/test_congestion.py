"""The price of delaying others: nothing when nobody waits, most where most is coming."""

from random import Random

import pytest

from lodestar_router.policy.congestion import (
    BUSY_POWER,
    IDLE_POWER,
    KAPPA,
    MEMORY_S,
    CongestionPrice,
)
from lodestar_router.policy.lodestar import LodestarPolicy
from tests.factories import candidate, request


def test_nothing_was_sent_yet_so_nothing_has_a_price() -> None:
    price = CongestionPrice()

    assert price.prices_s([candidate("a")], [0.5], [500], [1e-3], 100.0) == [0.0]
    assert price.requests_per_s(100.0) == 0.0


def test_the_price_is_the_formula() -> None:
    price = CongestionPrice()
    busy, idle = candidate("a", inflight_prefill_tokens=1000), candidate("b")
    for _ in range(29):
        price.sent(busy, 200, 0.2, 5.0)
    price.sent(idle, 200, 0.2, 5.0)

    charged, _ = price.prices_s([busy, idle], [0.3] * 2, [100] * 2, [1e-3] * 2, 5.0)

    busy_ratio, drain_s = 29 * 0.2 / MEMORY_S, 1000 * 1e-3 + 0.1
    power = IDLE_POWER + BUSY_POWER * (29 + 1) * 0.2 / MEMORY_S / 2
    size = (100 / 200) ** power
    assert charged == pytest.approx(KAPPA * size * busy_ratio / (1 - busy_ratio) * drain_s)


def test_a_price_goes_on_from_what_another_has_seen() -> None:
    before, after = CongestionPrice(), CongestionPrice()
    engines = [candidate("a", inflight_prefill_tokens=1000), candidate("b")]
    for number in range(60):
        before.sent(engines[number % 2], 100 + number, 0.1 + 0.01 * number, 95.0 + 0.1 * number)
    arguments = (engines, [0.3, 0.3], [100, 200], [1e-3, 1e-3])

    after.restore(before.state(102.0), 7.0)

    assert after.prices_s(*arguments, 7.0) == pytest.approx(before.prices_s(*arguments, 102.0))
    assert after.requests_per_s(7.0) == pytest.approx(before.requests_per_s(102.0))


def test_a_price_that_has_seen_nothing_can_be_gone_on_from() -> None:
    price = CongestionPrice()

    price.restore(CongestionPrice().state(5.0), 7.0)

    assert price.prices_s([candidate("a")], [0.5], [500], [1e-3], 8.0) == [0.0]
    price.sent(candidate("a"), 200, 0.2, 8.0)
    assert price.requests_per_s(9.0) > 0.0


def test_the_busier_the_fleet_the_more_a_long_request_pays_for_its_length() -> None:
    engine = candidate("a", inflight_prefill_tokens=10**6)

    def long_to_short(requests: int) -> float:
        price = CongestionPrice()
        for _ in range(requests):
            price.sent(engine, 200, 0.2, 0.0)
        short, long = price.prices_s([engine, engine], [0.0] * 2, [100, 400], [1e-3] * 2, 0.0)
        return long / short

    idle, half, busy = (long_to_short(requests) for requests in (1, 75, 130))

    assert idle < 4 < half < busy
    assert long_to_short(10_000) == pytest.approx(4 ** (IDLE_POWER + BUSY_POWER * 0.9), rel=1e-3)


def test_how_fast_an_engine_is_counts_in_its_queue_and_not_twice() -> None:
    price = CongestionPrice()
    fast, slow = (candidate(name, inflight_prefill_tokens=1000) for name in "ab")
    for _ in range(10):
        price.sent(fast, 200, 0.3, 0.0)
        price.sent(slow, 100, 0.3, 0.0)  # as busy, of half the tokens

    to_fast, to_slow = price.prices_s([fast, slow], [0.0] * 2, [500] * 2, [1e-3, 2e-3], 0.0)

    assert to_slow == pytest.approx(2 * to_fast)


def test_many_short_requests_close_an_engine_no_more_than_few_long_ones() -> None:
    price = CongestionPrice()
    short, long = (candidate(name, inflight_prefill_tokens=1000) for name in "ab")
    for _ in range(100):
        price.sent(short, 10, 0.01, 0.0)
    price.sent(long, 1000, 1.0, 0.0)

    to_short, to_long = price.prices_s([short, long], [0.3] * 2, [100] * 2, [1e-3] * 2, 0.0)

    assert to_short == pytest.approx(to_long)


def test_what_was_not_sent_after_all_is_taken_back() -> None:
    price, other = CongestionPrice(), CongestionPrice()
    engine = candidate("a", inflight_prefill_tokens=1000)
    for _ in range(10):
        price.sent(engine, 200, 0.2, 0.0)
        other.sent(engine, 200, 0.2, 0.0)
    price.sent(engine, 700, 0.7, 0.0)
    price.withdrawn(engine, 700, 0.7, 0.0)
    for each in (price, other):
        each.sent(engine, 200, 0.2, 0.0)

    asked = [engine], [0.3], [100], [1e-3], 0.0
    assert price.prices_s(*asked) == pytest.approx(other.prices_s(*asked))

    price.withdrawn(engine, 100_000, 100.0, 3600.0)  # long faded
    assert price.prices_s([engine], [0.3], [100], [1e-3], 3600.0) == [0.0]


def test_a_day_without_requests_leaves_a_price() -> None:
    price = CongestionPrice()
    engine = candidate("a")
    price.sent(engine, 200, 0.2, 0.0)

    assert price.prices_s([engine], [0.3], [100], [1e-3], 86_400.0) == [0.0]
    assert price.requests_per_s(86_400.0) == 0.0


def test_the_rate_is_right_from_the_first_seconds() -> None:
    price = CongestionPrice()
    rates = []
    for number in range(1200):
        now_s = number / 20
        price.sent(candidate(f"e{number % 3}"), 100, 0.1, now_s)
        if number in (60, 1199):
            rates.append(price.requests_per_s(now_s))

    assert rates == pytest.approx([20.0, 20.0], rel=0.05)


def test_what_was_sent_fades_and_is_forgotten() -> None:
    price = CongestionPrice()
    busy = candidate("a", inflight_prefill_tokens=1000)
    price.sent(busy, 100, 0.2, 0.0)

    now, later = (
        price.prices_s([busy], [0.3], [100], [1e-3], at_s)[0] for at_s in (0.0, 2 * MEMORY_S)
    )
    price.sent(candidate("b"), 100, 0.1, 1000.0)

    assert later == pytest.approx(now * 0.1353 * (1 - 0.2 / MEMORY_S), rel=1e-2)
    assert price.prices_s([busy], [0.3], [100], [1e-3], 1000.0) == [0.0]


def test_engines_that_do_not_take_the_request_do_not_make_those_that_do_seem_idle() -> None:
    price, alone = CongestionPrice(), CongestionPrice()
    busy = candidate("a", inflight_prefill_tokens=1000)
    price.sent(candidate("of another model"), 100, 0.1, 0.0)
    for each in (price, alone):
        for _ in range(100):
            each.sent(busy, 100, 0.2, 0.0)

    asked = [busy], [0.3], [100], [1e-3], 0.0

    assert price.prices_s(*asked) == pytest.approx(alone.prices_s(*asked))


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
