"""Requests that wait for their engine: turns, lost engines, clients that leave, real sockets."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from math import inf
from random import Random
from typing import ClassVar

import pytest
import uvloop

from lodestar_router.core.fleet import Fleet
from lodestar_router.core.hold import USUAL, HoldQueue, HoldSettings
from lodestar_router.core.types import (
    Arm,
    Candidate,
    Decision,
    Ending,
    EngineId,
    EngineLoad,
    EngineSpec,
    RoutedRequest,
    replace,
)
from lodestar_router.errors import DeadlineError, EngineUnreachableError
from lodestar_router.policy.baselines import RoundRobin
from lodestar_router.policy.lodestar import LodestarPolicy
from lodestar_router.proxy.holding import STALE_S, Holding, MovedError, Turn
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.tasks import spawn
from tests.fake_engine import FakeEngine
from tests.misbehaving_engine import Exchange, MisbehavingEngine
from tests.proxy.harness import Edge, RawClient, edge_before, stream_request, until

E0, E1 = EngineId("e0"), EngineId("e1")


class LongPrompts(RoundRobin):
    """Round robin that says what a prefill takes."""

    name: ClassVar[str] = "long_prompts"

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        decision = super().choose(request, candidates)
        return Decision(
            policy=self.name,
            candidates=decision.candidates,
            chosen=decision.chosen,
            costs=decision.costs,
            reason=decision.reason,
            work_s=[5.0] * len(candidates),
        )


class FirstWithLongPrompts(LongPrompts):
    """The first candidate, always."""

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        return replace(super().choose(request, candidates), chosen=0)


def reported(fleet: Fleet, engine_id: EngineId = E0, age_s: float = 0.0) -> None:
    fleet.observe_load(
        engine_id,
        EngineLoad(
            observed_at_s=time.monotonic() - age_s,
            source="metrics",
            num_running_reqs=0,
            num_waiting_reqs=0,
            kv_cache_usage_ratio=0.0,
        ),
    )


class Bench:
    """A Holding in front of two engines that are up."""

    def __init__(self, max_s: float = 10.0) -> None:
        self.fleet, self.metrics = Fleet(), Metrics()
        for engine_id in (E0, E1):
            self.fleet.add(EngineSpec(engine_id=engine_id, url=f"http://{engine_id}"))
            self.fleet.mark_up(engine_id, [{"id": "m"}], 0.0)
            reported(self.fleet, engine_id)
        self.holding = Holding(
            HoldSettings(max_s=max_s), fleet=self.fleet, metrics=self.metrics, clock=time.monotonic
        )

    def enter(
        self,
        work_s: float = 5.0,
        *,
        engine_id: EngineId = E0,
        again: bool = False,
        arm: Arm | None = None,
        would_move: Callable[[EngineId], bool] = lambda _: False,
    ) -> Turn:
        routed = RoutedRequest(
            request_id="r",
            model="m",
            prompt_tokens=100,
            tokens_known=True,
            max_output_tokens=None,
            stream=True,
            now_s=time.monotonic(),
        )
        candidate = Candidate(engine=self.fleet.snapshot(engine_id, 0.0), cached_prefix_tokens=0)
        decision = Decision(
            policy="p", candidates=[candidate], chosen=0, costs=[0.0], reason="only",
            work_s=[work_s], arm=arm,
        )  # fmt: skip
        turn = self.holding.enter(routed, decision, None, again=again, would_move=would_move)
        assert turn is not None
        return turn

    def gauge(self) -> float | None:
        return self.metrics.registry.get_sample_value("lodestar:held_requests", {"engine": "e0"})


async def test_a_turn_comes_when_the_one_before_is_over() -> None:
    bench = Bench()
    first, second = bench.enter(), bench.enter()
    await first.come(inf)
    waiting = spawn(second.come(inf), name="second")
    await asyncio.sleep(0.01)
    assert (waiting.done(), bench.gauge()) == (False, 1.0)

    first.over()
    await asyncio.wait_for(waiting, 1)

    assert bench.gauge() is None
    assert bench.metrics.registry.get_sample_value(
        "lodestar:hold_seconds_count", {"engine": "e0"}
    ) == pytest.approx(1)


async def test_a_turn_is_offered_to_those_who_wait_elsewhere_before_its_own() -> None:
    bench = Bench()
    asked: list[EngineId] = []

    def would_move(other: EngineId) -> bool:
        asked.append(other)
        return True

    bench.enter()
    elsewhere = spawn(bench.enter(would_move=would_move).come(inf), name="elsewhere")
    before = bench.enter(engine_id=E1)
    own = spawn(bench.enter(engine_id=E1).come(inf), name="own")
    await asyncio.sleep(0.01)

    before.over()
    with pytest.raises(MovedError):
        await asyncio.wait_for(elsewhere, 1)

    assert asked == [E1]
    await asyncio.wait_for(own, 1)  # nobody has come after all


async def test_a_turn_comes_by_itself_when_the_limit_is_reached() -> None:
    bench = Bench(max_s=0.05)
    bench.enter()

    began_s = time.monotonic()
    await asyncio.wait_for(bench.enter().come(inf), 1)

    assert time.monotonic() - began_s >= 0.045


async def test_a_request_that_failed_elsewhere_does_not_wait() -> None:
    bench = Bench()
    bench.enter()

    await asyncio.wait_for(bench.enter(again=True).come(inf), 0.1)


async def test_what_a_policy_on_trial_does_not_steer_does_not_wait() -> None:
    bench = Bench()
    bench.enter()

    await asyncio.wait_for(bench.enter(arm=Arm.FALLBACK).come(inf), 0.1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.enter(arm=Arm.LEARNED).come(inf), 0.05)


@pytest.mark.parametrize("age_s", [pytest.param(STALE_S + 0.5, id="old"), None])
async def test_nobody_waits_for_an_engine_that_does_not_report(age_s: float | None) -> None:
    bench = Bench()
    bench.fleet.mark_down(E0, "restarted", 1.0)
    bench.fleet.mark_up(E0, [{"id": "m"}], 2.0)
    if age_s is not None:
        reported(bench.fleet, age_s=age_s)
    bench.enter()

    await asyncio.wait_for(bench.enter().come(inf), 0.1)


async def test_who_waits_goes_when_the_engine_falls_silent() -> None:
    bench = Bench()
    bench.enter()
    reported(bench.fleet)
    second = bench.enter()

    began_s = time.monotonic()
    await asyncio.wait_for(second.come(inf), STALE_S + 2)

    assert time.monotonic() - began_s > STALE_S / 2


@pytest.mark.parametrize("loss", ["down", "removed", "circuit"])
async def test_a_lost_engine_sends_who_waits_elsewhere(loss: str) -> None:
    bench = Bench()
    bench.enter()
    waiting = spawn(bench.enter().come(inf), name="waits")
    await asyncio.sleep(0)
    if loss == "down":
        bench.fleet.mark_down(E0, "died", 1.0)
    elif loss == "removed":
        bench.fleet.remove(E0)
    else:
        bench.fleet[E0].circuit.trip("fails", time.monotonic())

    with pytest.raises(EngineUnreachableError):
        await asyncio.wait_for(waiting, 1)
    assert bench.gauge() is None


async def test_the_requests_own_time_bounds_the_wait() -> None:
    bench = Bench()
    bench.enter()
    second = bench.enter()

    with pytest.raises(DeadlineError):
        await second.come(time.monotonic() + 0.02)
    second.over()

    assert bench.gauge() is None


@pytest.fixture
async def engine() -> AsyncIterator[MisbehavingEngine]:
    """One that answers when told to."""
    answers = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        await answers.wait()
        await exchange.answer()

    engine = await MisbehavingEngine(wait).start()
    engine.answers = answers  # type: ignore[attr-defined]
    yield engine
    answers.set()
    await engine.stop()


async def one_waits(edge: Edge, engine: MisbehavingEngine) -> tuple[RawClient, RawClient]:
    """Two who ask for the same: the engine is busy with the first, the second waits for it."""
    first, second = await edge.client(), await edge.client()
    await first.send(stream_request())
    await until(lambda: len(engine.posts) == 1)
    await second.send(stream_request())
    await until(lambda: len(edge.recorder.decisions) == 2)
    return first, second


async def test_a_client_that_leaves_while_it_waits_costs_nothing(
    engine: MisbehavingEngine,
) -> None:
    async with edge_before(engine, policy=LongPrompts(Random(0)), hold_max_s=10.0) as edge:
        reported(edge.fleet)
        first, second = await one_waits(edge, engine)

        await second.close()
        await until(lambda: len(edge.recorder.outcomes) == 1)
        engine.answers.set()  # type: ignore[attr-defined]
        await first.reply()
        await until(lambda: edge.inflight() == 0)

        assert len(engine.posts) == 1
        assert b"lodestar:held_requests{" not in edge.metrics.exposition()


async def test_requests_reach_the_engine_one_after_the_other(engine: MisbehavingEngine) -> None:
    async with edge_before(engine, policy=LongPrompts(Random(0)), hold_max_s=10.0) as edge:
        reported(edge.fleet)
        clients = [await edge.client() for _ in range(3)]
        for client in clients:
            await client.send(stream_request())
        await until(lambda: len(edge.recorder.decisions) == 3)
        await asyncio.sleep(0.05)
        assert len(engine.posts) == 1

        engine.answers.set()  # type: ignore[attr-defined]
        replies = [await client.reply() for client in clients]

        assert [reply.status for reply in replies] == [200, 200, 200]
        held = ["x-lodestar-held-ms" in reply.headers for reply in replies]
        assert held == [False, True, True]
        assert sum(outcome.held_s >= 0.05 for outcome in edge.recorder.outcomes) >= 2
        assert edge.inflight() == 0


async def test_who_waits_for_an_engine_that_dies_is_answered_by_another(
    engine: MisbehavingEngine,
) -> None:
    other = await FakeEngine().start()
    policy = FirstWithLongPrompts(Random(0))
    async with edge_before(engine, other, policy=policy, hold_max_s=10.0) as edge:
        reported(edge.fleet)
        _, second = await one_waits(edge, engine)
        edge.fleet.mark_down(E0, "died", time.monotonic())

        reply = await second.reply()

        assert reply.status == 200
        assert reply.headers["x-lodestar-engine"] == "e1"
        assert len(engine.posts) == 1
    await other.stop()


class Restless(LodestarPolicy):
    """Takes the first engine until told to take the last, for the same long prompts."""

    settled = True

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        decision = super().choose(request, candidates)
        chosen = 0 if self.settled else len(candidates) - 1
        return replace(decision, chosen=chosen, work_s=[5.0] * len(candidates))

    def prefers_another(
        self, request: RoutedRequest, candidates: Sequence[Candidate], engine_id: EngineId
    ) -> bool:
        return not self.settled and candidates[-1].engine.engine_id != engine_id


async def test_who_waits_is_decided_anew_when_another_engine_is_free(
    engine: MisbehavingEngine,
) -> None:
    other = await FakeEngine().start()
    policy = Restless(Random(0))
    async with edge_before(engine, other, policy=policy, hold_max_s=10.0) as edge:
        reported(edge.fleet)
        reported(edge.fleet, EngineId("e1"))
        (first, second), third = await one_waits(edge, engine), await edge.client()
        await asyncio.sleep(0.05)

        policy.settled = False
        await third.send(stream_request())  # its first token sets e1 free
        replies = [await third.reply(), await second.reply()]

        assert [reply.headers["x-lodestar-engine"] for reply in replies] == ["e1", "e1"]
        assert float(replies[1].headers["x-lodestar-held-ms"]) >= 50
        endings = [outcome.ending for outcome in edge.recorder.outcomes]
        assert endings.count(Ending.MOVED) == 1
        lines = [line for line in edge.route_lines.lines if "Routing request" in line]
        assert len(lines) == 3  # one each, once it is known where
        engine.answers.set()  # type: ignore[attr-defined]
        await first.reply()
        await until(lambda: edge.inflight() == 0)
        assert b"lodestar:held_requests{" not in edge.metrics.exposition()
        ttft_s = edge.metrics.registry.get_sample_value(
            "lodestar:time_to_first_token_seconds_sum", {"engine": "e1"}
        )
        assert ttft_s is not None
        assert ttft_s >= 0.05
    await other.stop()


class DueAtOnce(HoldQueue):
    """Two looks are due now, then none."""

    looks = 0

    def due_at_s(self, engine_id: EngineId) -> float:
        self.looks += 1
        return 0.0 if self.looks <= 2 else inf


def test_two_looks_that_are_due_at_once_are_one_under_uvloop() -> None:
    fleet = Fleet()
    fleet.add(EngineSpec(engine_id=E0, url="http://e0"))

    async def ends_of_two_requests() -> int:
        holding = Holding(USUAL, fleet=fleet, metrics=Metrics(), clock=time.monotonic)
        queue = holding.queue = DueAtOnce(USUAL)
        for number in (1, 2):
            holding.over(number, E0)
        await asyncio.sleep(0.01)
        return queue.looks

    assert uvloop.run(ends_of_two_requests()) == 3
