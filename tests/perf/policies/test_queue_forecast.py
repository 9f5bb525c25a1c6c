"""The light forecast against the engine itself, run on from a full copy."""

import copy
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest

from lodestar_router.core.block_keys import chain_keys, seed_key
from lodestar_router.emulator.config import SchedulerKind
from lodestar_router.emulator.engine_model import EngineModel
from lodestar_router.emulator.sequence import EmulatedRequest
from perf.routing.policies.queue_forecast import Arrival, QueueForecast
from tests.emulator.factories import engine, random_requests, request
from tests.perf.policies.fakes import LinearStepTime


def arrival(model: EngineModel, asked: EmulatedRequest) -> Arrival:
    tokens = np.array(asked.token_ids, dtype=np.uint32)
    size = model.config.block_size_tokens
    keys = chain_keys(seed_key(size), tokens, size) if model.config.prefix_caching else ()
    return Arrival(
        at_s=asked.arrived_at_s,
        prompt_tokens=len(tokens),
        max_tokens=asked.max_tokens,
        keys=keys,
    )


def first_token_at_s(
    model: EngineModel, coming: Sequence[EmulatedRequest], start_s: float
) -> float:
    """What really happens to the last of `coming`."""
    model = copy.deepcopy(model)
    left, now_s, target = list(coming), start_s, None
    while target is None or target.first_token_at_s is None:
        while left and left[0].arrived_at_s <= now_s:
            target = model.add(left.pop(0))
        if left:
            target = None
        result = model.step(now_s)
        now_s = left[0].arrived_at_s if result is None else result.ended_at_s
    return target.first_token_at_s


def errors_s(
    seed: int, requests_per_s: float, longest_prompt: int, longer: int = 1, **fields: Any
) -> tuple[list[float], float, int]:
    """(forecast minus truth per request, mean truth, preemptions) of an engine under load."""
    rng = Random(seed)
    model = engine(LinearStepTime(), **fields)
    now_s = due_s = total_s = 0.0
    errors: list[float] = []
    preemptions = 0
    for asked in random_requests(rng, 80, longest_prompt):
        due_s += rng.expovariate(requests_per_s)
        while model.has_work and now_s <= due_s:
            result = model.step(now_s)
            assert result is not None
            now_s, preemptions = result.ended_at_s, preemptions + len(result.preempted)
        now_s = max(now_s, due_s)
        coming = EmulatedRequest(
            request_id=asked.request_id,
            token_ids=asked.token_ids,
            max_tokens=asked.max_tokens * longer,
            arrived_at_s=due_s,
        )
        truth_s = first_token_at_s(model, [coming], now_s)
        forecast_s = QueueForecast(model, [arrival(model, coming)], now_s).first_token_at_s()
        errors.append(forecast_s - truth_s)
        total_s += truth_s - due_s
        model.add(coming)
    return errors, total_s / len(errors), preemptions


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="plain"),
        pytest.param({"prefix_caching": False}, id="no-prefix-cache"),
        pytest.param({"chunked_prefill": False, "max_num_batched_tokens": 512}, id="unchunked"),
        pytest.param({"long_prefill_token_threshold": 24}, id="long-prefill-threshold"),
        pytest.param({"max_num_seqs": 3}, id="few-sequences"),
        pytest.param({"slowdown": 3.0}, id="slow"),
        pytest.param(
            {
                "scheduler": SchedulerKind.PREFILL_FIRST,
                "prefix_caching": False,
                "max_num_batched_tokens": 512,
            },
            id="prefill-first",
        ),
    ],
)
def test_it_is_exact_while_memory_suffices(fields: dict[str, Any]) -> None:
    errors, mean_s, preemptions = errors_s(1, 3.0, 150, **{"num_blocks": 2000, **fields})

    assert preemptions == 0
    assert max(map(abs, errors)) < 1e-9
    assert mean_s > 0.01


def test_it_is_close_when_memory_is_short() -> None:
    """Requests wait for blocks, preempt each other and lose cached prefixes."""
    errors, mean_s, preemptions = errors_s(2, 6.0, 200, longer=6, num_blocks=64)

    assert preemptions > 10
    assert sum(map(abs, errors)) / len(errors) < 0.05 * mean_s


def test_requests_under_way_come_first_and_an_idle_engine_waits_for_them() -> None:
    model = engine()
    coming = [
        request("a", prompt=100, arrived_at_s=5.0),
        request("b", prompt=30, arrived_at_s=5.05),
    ]

    forecast = QueueForecast(model, [arrival(model, asked) for asked in coming], 3.0)

    # Steps of 0.1 s and 64 tokens: 64 of a; 36 of a and 28 of b; the last 2 of b.
    assert forecast.first_token_at_s() == pytest.approx(5.3)
    assert first_token_at_s(model, coming, 3.0) == pytest.approx(5.3)


def test_it_gives_up_soon_after_the_deadline() -> None:
    model = engine()
    for number in range(20):
        model.add(request(f"r{number}", prompt=100))

    late_s = QueueForecast(model, [arrival(model, request("x"))], 0.0).first_token_at_s(1.0)

    assert 1.0 < late_s < 1.2


def test_the_engine_is_left_as_it_is() -> None:
    model, twin = engine(num_blocks=40), engine(num_blocks=40)
    for asked in random_requests(Random(3), 30, 200):
        for copy_ in (model, twin):
            copy_.add(asked)
            copy_.step(0.0)
        QueueForecast(model, [arrival(model, request("x", 90))], 1.0).first_token_at_s()

    for _ in range(50):
        ours, theirs = model.step(1.0), twin.step(1.0)
        assert ours is not None
        assert theirs is not None
        assert (ours.events, ours.num_running_reqs) == (theirs.events, theirs.num_running_reqs)
