"""The oracle: what it knows, and when it says so."""

from random import Random

import numpy as np
import pytest

from lodestar_router.core.types import replace
from lodestar_router.emulator.sequence import EmulatedRequest
from perf.routing.policies.greedy_oracle import GreedyOracle
from tests.emulator.factories import engine, request
from tests.factories import candidate
from tests.factories import request as routed
from tests.perf.policies.fakes import FakeSimulation, three

ASKED = routed(request_id="x", prompt_tokens=100)
PROMPT = np.arange(100, dtype=np.uint32)


@pytest.fixture
def simulation() -> FakeSimulation:
    """Three engines whose steps take 0.1 s and hold 64 tokens; a prompt of 100 tokens."""
    made = FakeSimulation({name: engine() for name in "abc"})
    made.prompts["x"] = PROMPT
    return made


def oracle(simulation: FakeSimulation, seed: int = 0) -> GreedyOracle:
    policy = GreedyOracle(Random(seed))
    policy.attach(simulation)
    return policy


def test_it_must_be_attached() -> None:
    with pytest.raises(RuntimeError, match="not attached"):
        GreedyOracle(Random(0)).choose(ASKED, three())


def test_costs_are_true_times_to_the_first_token(simulation: FakeSimulation) -> None:
    simulation.now_s = 7.0
    # b holds 96 of the tokens in its cache; of c, a step is under way until 7.25.
    for name, tokens in (("b", 100), ("c", 64)):
        simulation.models[name].add(request(name, PROMPT[:tokens].tolist(), max_tokens=1))
    while simulation.models["b"].has_work:
        simulation.models["b"].step(0.0)
    simulation.models["c"].step(7.15)
    simulation.step_ends["c"] = 7.25

    decision = oracle(simulation).choose(ASKED, three())

    # b: one step; c: what its step has left, one step, as 64 tokens are cached by then.
    assert decision.costs[1] == pytest.approx(simulation.transit_s + 0.1)
    assert decision.engine_id == "b"
    assert decision.costs[0] > decision.costs[1]
    assert decision.costs[2] > decision.costs[1]
    alone = oracle(simulation).choose(replace(ASKED, request_id="y"), [candidate("c")])
    simulation.prompts["y"] = PROMPT
    assert alone.costs[0] == pytest.approx(0.25 + 0.2)


def test_equal_engines_share(simulation: FakeSimulation) -> None:
    chosen = {oracle(simulation, seed).choose(ASKED, three()).engine_id for seed in range(20)}

    assert chosen == {"a", "b", "c"}


def test_what_the_router_believes_does_not_matter(simulation: FakeSimulation) -> None:
    simulation.models["a"].add(request("a", prompt=300))
    believed_idle = candidate("a", cached_prefix_tokens=99)
    believed_busy = candidate("b", inflight_requests=90, inflight_prefill_tokens=9000)

    decision = oracle(simulation).choose(ASKED, [believed_idle, believed_busy])

    assert decision.engine_id == "b"


def test_requests_still_under_way_count(simulation: FakeSimulation) -> None:
    policy = oracle(simulation)
    fleet = [candidate("a"), candidate("b")]
    first = policy.choose(ASKED, fleet)
    simulation.prompts["y"] = PROMPT + 1000
    simulation.under_way[first.engine_id] = [
        EmulatedRequest(request_id="x", token_ids=PROMPT, max_tokens=50)
    ]

    second = policy.choose(replace(ASKED, request_id="y"), fleet)

    assert second.engine_id != first.engine_id


def test_requests_that_arrived_are_counted_once(simulation: FakeSimulation) -> None:
    policy = oracle(simulation)
    policy.choose(ASKED, [candidate("a")])
    simulation.advance(simulation.transit_s)
    model = simulation.models["a"]
    model.add(EmulatedRequest(request_id="x", token_ids=PROMPT, max_tokens=1))
    model.step(simulation.transit_s)
    simulation.step_ends["a"] = simulation.transit_s + 0.1
    simulation.prompts["y"] = PROMPT + 1000

    decision = policy.choose(replace(ASKED, request_id="y"), [candidate("a")])

    # 0.1 s of the step under way, then 36 + 28, 64 and 8 tokens.
    assert decision.costs[0] == pytest.approx(0.4)
