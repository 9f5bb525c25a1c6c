"""The price of KV cache: nothing where there is room, most where a full cache is held longest."""

import pytest

from lodestar_router.core.types import Candidate, EngineLoad, replace
from lodestar_router.policy.room import USAGE_POWER, room_prices_s
from tests.factories import candidate, request


def using(usage: float | None, *, blocks: int | None = 1000, under_way: int = 20) -> Candidate:
    """An engine of 16,000 tokens of KV cache, so much of it in use."""
    one = candidate("a")
    load = None
    if usage is not None:
        load = EngineLoad(
            observed_at_s=0.0,
            source="metrics",
            num_running_reqs=under_way,
            num_waiting_reqs=0,
            kv_cache_usage_ratio=usage,
        )
    return replace(
        one,
        engine=replace(
            one.engine,
            load=load,
            kv_blocks=blocks,
            block_size_tokens=16,
            inflight_requests=under_way,
        ),
    )


def prices(
    *engines: Candidate, prompt_tokens: int = 1400, output_tokens: float = 200.0
) -> list[float]:
    return room_prices_s(
        request(prompt_tokens=prompt_tokens),
        engines,
        output_tokens=output_tokens,
        requests_per_s=4.0,
    )


def test_the_price_is_the_formula() -> None:
    full, half = prices(using(1.0), using(0.5, under_way=10))

    stay_s = 30 / 4.0
    assert full == pytest.approx(1600 / 16_000 * stay_s * 20)
    assert half == pytest.approx(1600 / 16_000 * stay_s * 10 * 0.5**USAGE_POWER)


def test_who_holds_more_pays_more_and_what_is_cached_is_held_already() -> None:
    (long,), (short,) = prices(using(0.9), prompt_tokens=8000), prices(using(0.9))
    (cached,) = prices(replace(using(0.9), cached_prefix_tokens=1000))

    assert long > short > cached > 0.0


@pytest.mark.parametrize("engine", [using(None), using(0.9, blocks=None), using(0.0)])
def test_an_engine_that_says_nothing_or_is_empty_has_no_price(engine: Candidate) -> None:
    assert prices(engine) == [0.0]


def test_nothing_was_sent_yet() -> None:
    charged = room_prices_s(request(), [using(1.0)], output_tokens=1.0, requests_per_s=0.0)

    assert charged == [0.0]
