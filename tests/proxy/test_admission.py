"""Places and the queue for them: order, refusals, and that nothing is ever lost or kept."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from lodestar_router.errors import OverloadedError
from lodestar_router.proxy.admission import Admission, AdmissionLimits
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.tasks import spawn
from tests.fake_engine import FakeEngine
from tests.misbehaving_engine import Exchange, MisbehavingEngine
from tests.proxy.harness import RawClient, edge_before, get, stream_request, until


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def admission(
    running: int, queued: int, timeout_s: float = 0.0, clock: Clock | None = None
) -> tuple[Admission, Metrics]:
    metrics = Metrics()
    limits = AdmissionLimits(running=running, queued=queued, queue_timeout_s=timeout_s)
    return Admission(limits, metrics=metrics, clock=clock or Clock()), metrics


def gauges(metrics: Metrics, model: str = "m") -> tuple[float | None, float | None]:
    """(under way, waiting); None when nothing is kept of the model."""
    labels = {"model": model}
    return (
        metrics.registry.get_sample_value("lodestar:admitted_requests", labels),
        metrics.registry.get_sample_value("lodestar:queued_requests", labels),
    )


async def test_first_come_first_served() -> None:
    gate, metrics = admission(running=1, queued=5)
    order: list[int] = []

    async def one(number: int) -> None:
        await gate.enter("m")
        order.append(number)
        await asyncio.sleep(0)
        gate.leave("m")

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(one(number))
        await asyncio.sleep(0)
        assert gauges(metrics) == (1, 5)

    assert order == [0, 1, 2, 3, 4, 5]
    assert gauges(metrics) == (None, None)


async def test_who_comes_later_does_not_overtake_who_was_just_called() -> None:
    gate, _ = admission(running=1, queued=5)
    await gate.enter("m")
    waiting = spawn(gate.enter("m"), name="one")
    await asyncio.sleep(0)

    gate.leave("m")  # the place is promised, the waiting task has not run yet
    late = spawn(gate.enter("m"), name="one")
    await waiting

    assert not late.done()
    gate.leave("m")
    await late


async def test_models_do_not_wait_for_each_other() -> None:
    gate, _ = admission(running=1, queued=0)
    await gate.enter("a")

    await gate.enter("b")

    with pytest.raises(OverloadedError):
        await gate.enter("a")


async def test_a_full_queue_says_when_it_will_have_gone_through() -> None:
    clock = Clock()
    gate, _ = admission(running=1, queued=20, clock=clock)
    await gate.enter("m")
    waiting = [spawn(gate.enter("m"), name="one") for _ in range(20)]
    await asyncio.sleep(0)
    for _ in range(3):
        clock.now_s += 2.0
        gate.leave("m")
        waiting.append(spawn(gate.enter("m"), name="one"))
        await asyncio.sleep(0)

    with pytest.raises(OverloadedError) as refused:
        await gate.enter("m")

    assert refused.value.retry_after_s == 40  # 20 wait, and one ends every 2 s
    for task in waiting:
        task.cancel()


async def test_who_waits_too_long_is_refused_and_leaves_nothing() -> None:
    gate, metrics = admission(running=1, queued=5, timeout_s=0.02)
    await gate.enter("m")

    with pytest.raises(OverloadedError, match="too long"):
        await gate.enter("m")

    assert gauges(metrics) == (1, 0)
    gate.leave("m")
    assert gauges(metrics) == (None, None)


async def test_a_place_that_comes_as_its_taker_leaves_goes_to_the_next() -> None:
    gate, metrics = admission(running=1, queued=5)
    await gate.enter("m")
    leaving = spawn(gate.enter("m"), name="one")
    patient = spawn(gate.enter("m"), name="one")
    await asyncio.sleep(0)

    gate.leave("m")
    leaving.cancel()
    await asyncio.wait_for(patient, 5)

    assert leaving.cancelled()
    assert gauges(metrics) == (1, 0)


async def test_whatever_happens_no_place_is_lost_and_none_is_given_twice() -> None:
    rng = Random(7)
    gate, metrics = admission(running=3, queued=10, timeout_s=0.01)
    running = most = 0

    async def one() -> None:
        nonlocal running, most
        await gate.enter("m")
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(rng.choice([0, 0, 0.002]))
        finally:
            running -= 1
            gate.leave("m")

    tasks: list[asyncio.Task[None]] = []
    for _ in range(1000):
        tasks.append(spawn(one(), name="one"))
        if rng.random() < 0.4:
            rng.choice(tasks).cancel()
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    endings = await asyncio.gather(*tasks, return_exceptions=True)

    assert most == 3
    assert gauges(metrics) == (None, None)
    assert {type(ending) for ending in endings} == {
        type(None), OverloadedError, asyncio.CancelledError,
    }  # fmt: skip


# Through real sockets.


@pytest.fixture
async def slow() -> AsyncIterator[MisbehavingEngine]:
    """An engine that answers when told to."""
    gate = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        await gate.wait()
        await exchange.answer()

    engine = await MisbehavingEngine(wait).start()
    engine.gate = gate  # type: ignore[attr-defined]
    yield engine
    gate.set()
    await engine.stop()


LIMITS = AdmissionLimits(running=2, queued=1, queue_timeout_s=0.0)


async def test_full_is_429_with_retry_after_and_the_rest_is_answered_in_turn(
    slow: MisbehavingEngine,
) -> None:
    async with edge_before(slow, admission=LIMITS) as edge:
        clients: list[RawClient] = []
        for _ in range(3):
            clients.append(await edge.client())
            await clients[-1].send(stream_request())
        await until(lambda: gauges(edge.metrics, "tiny") == (2, 1))

        refused = await edge.ask()
        probe = await edge.client()
        await probe.send(get("/health"))
        health = await probe.reply()
        slow.gate.set()  # type: ignore[attr-defined]
        answers = [(await client.reply()).status for client in clients]

        assert (refused.status, refused.json()["error"]["code"]) == (429, "model_overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert health.status == 200
        assert answers == [200, 200, 200]
        assert edge.counted("refused_requests", code="model_overloaded") == 1
        await until(lambda: gauges(edge.metrics, "tiny") == (None, None))


async def test_a_client_that_leaves_while_it_waits_costs_nothing(slow: MisbehavingEngine) -> None:
    async with edge_before(slow, admission=LIMITS) as edge:
        clients: list[RawClient] = []
        for _ in range(3):
            clients.append(await edge.client())
            await clients[-1].send(stream_request())
        await until(lambda: gauges(edge.metrics, "tiny") == (2, 1))

        await clients[2].close()
        await until(lambda: gauges(edge.metrics, "tiny") == (2, 0))
        await clients[0].close()
        await until(lambda: gauges(edge.metrics, "tiny") == (1, 0))
        slow.gate.set()  # type: ignore[attr-defined]

        assert (await clients[1].reply()).status == 200
        await until(lambda: gauges(edge.metrics, "tiny") == (None, None))
        assert len(edge.recorder.decisions) == 2
        assert edge.inflight() == 0


async def test_an_unknown_model_does_not_wait(slow: MisbehavingEngine) -> None:
    async with edge_before(slow, admission=LIMITS) as edge:
        client = await edge.client()
        await client.send(stream_request().replace(b"tiny", b"huge"))

        assert (await client.reply()).status == 404
        assert gauges(edge.metrics, "huge") == (None, None)


async def test_a_router_that_is_behind_sheds_and_still_says_how_it_is() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        for _ in range(3):
            edge.lag.sampled(0.5)
        shed = await edge.ask()
        probe = await edge.client()
        await probe.send(get("/health"))
        health = await probe.reply()
        edge.lag.sampled(0.01)
        after = await edge.ask()

        assert (shed.status, shed.json()["error"]["code"]) == (503, "router_overloaded")
        assert shed.headers["retry-after"] == "1"
        assert (health.status, after.status) == (200, 200)
        assert len(engine.requests) == 1
    await engine.stop()
