import json
from pathlib import Path
from random import Random

import pytest

from lodestar_router.core.types import EngineId
from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.learning.checkpoint import CheckpointError, seal
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.router_memory import KIND, RouterMemory
from tests.factories import candidate, request

A, B = EngineId("a"), EngineId("b")


class Router:
    """What remembers, and its clocks."""

    def __init__(self, now_s: float, wall_s: float) -> None:
        self.now_s, self.wall_s = now_s, wall_s
        self.tracker = ResidualTracker()
        self.policy = LodestarPolicy(Random(0))
        self.memory = RouterMemory(
            self.tracker,
            self.policy,
            clock=lambda: self.now_s,
            wall_clock=lambda: self.wall_s,
        )

    def live(self) -> "Router":
        for _ in range(30):
            self.tracker.observe(A, 1.0, self.now_s)
            self.tracker.observe(B, 0.1, self.now_s)
            self.policy.choose(request(prompt_tokens=4000, now_s=self.now_s), [candidate("a")])
            self.policy.decoding.fit.observe(
                "A30", tokens=100, prefill_tokens=0.0, context_tokens=0.0, seconds=5.0
            )
        return self


def test_a_restarted_router_has_the_corrections_as_if_it_had_never_ended() -> None:
    before = Router(now_s=500.0, wall_s=1e9).live()
    after = Router(now_s=3.0, wall_s=1e9 + 10.0)

    after.memory.recall(before.memory.dump())

    for engine in (A, B):
        stayed = before.tracker.value(engine, 510.0)
        assert after.tracker.value(engine, 3.0) == pytest.approx(stayed)
    assert after.policy.long_ttft_s.value == pytest.approx(before.policy.long_ttft_s.value)
    assert after.policy.decoding.fit.rate("A30") == before.policy.decoding.fit.rate("A30")
    assert after.policy.decoding.fit.rate("new") == before.policy.decoding.fit.rate("new")


def test_what_was_sent_is_taken_for_what_comes() -> None:
    before = Router(now_s=500.0, wall_s=1e9).live()
    after = Router(now_s=3.0, wall_s=1e9 + 10.0)

    after.memory.recall(before.memory.dump())

    sent_per_s = before.policy.congestion.requests_per_s(500.0)
    assert sent_per_s > 1.0
    assert after.policy.congestion.requests_per_s(3.0) == pytest.approx(sent_per_s)


def test_a_memory_from_before_it_had_what_was_sent_is_taken_over(tmp_path: Path) -> None:
    memory = {"at_s": 0.0, "corrections": {}, "decode_rates": {}, "long_ttft_s": 2.0}
    router = Router(now_s=0.0, wall_s=0.0)

    router.memory.recall(seal(KIND, json.dumps(memory).encode()))

    assert router.policy.long_ttft_s.value == pytest.approx(2.0)
    assert router.policy.congestion.requests_per_s(0.0) == 0.0


def test_corrections_of_yesterday_have_faded() -> None:
    before = Router(now_s=500.0, wall_s=1e9).live()
    after = Router(now_s=3.0, wall_s=1e9 + 86_400.0)

    after.memory.recall(before.memory.dump())

    assert after.tracker.value(A, 3.0) == pytest.approx(0.0, abs=1e-6)


def test_a_wall_clock_that_was_set_back_makes_nothing_younger_than_it_is() -> None:
    before = Router(now_s=500.0, wall_s=1e9).live()
    after = Router(now_s=3.0, wall_s=1e9 - 3600.0)

    after.memory.recall(before.memory.dump())

    assert after.tracker.value(A, 3.0) == pytest.approx(before.tracker.value(A, 500.0))


def test_a_router_that_has_seen_nothing_can_be_remembered() -> None:
    after = Router(now_s=3.0, wall_s=1e9)

    after.memory.recall(Router(now_s=1.0, wall_s=1e9).memory.dump())

    assert after.policy.long_ttft_s.value is None
    assert after.tracker.value(A, 3.0) == 0.0


def test_no_file_is_no_memory(tmp_path: Path) -> None:
    Router(now_s=0.0, wall_s=0.0).memory.load(tmp_path / "router.lodestar")


@pytest.mark.parametrize(
    "memory",
    [
        pytest.param(b"[]", id="a-list"),
        pytest.param(b"{", id="no-json"),
        pytest.param({"at_s": "now"}, id="a-word-for-a-time"),
        pytest.param({"corrections": {"a": [1.0, 2.0]}}, id="a-number-missing"),
        pytest.param({"corrections": {"a": [1.0, float("nan"), 1.0]}}, id="not-a-number"),
        pytest.param({"decode_rates": {"A30": [1.0]}}, id="half-a-rate"),
        pytest.param({"long_ttft_s": -1.0}, id="a-negative-time"),
        pytest.param({"lately": {"": [1.0, -2.0, 3.0]}}, id="less-than-nothing-sent"),
        pytest.param({"lately": {"a": [1.0, float("nan")]}}, id="no-number-sent"),
    ],
)
def test_what_is_no_memory_is_refused_by_its_path(memory: object, tmp_path: Path) -> None:
    whole = {"at_s": 0.0, "corrections": {}, "decode_rates": {}, "long_ttft_s": None}
    body = memory if isinstance(memory, bytes) else json.dumps({**whole, **memory}).encode()  # type: ignore[dict-item]
    path = tmp_path / "router.lodestar"
    path.write_bytes(seal(KIND, body))

    with pytest.raises(CheckpointError, match=r"router.lodestar is not usable: malformed"):
        Router(now_s=0.0, wall_s=0.0).memory.load(path)
