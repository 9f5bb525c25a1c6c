"""Which failures reach another engine, which do not, and what all of them may cost."""

import asyncio

import pytest

from lodestar_router.core.types import Ending, EngineId
from tests.misbehaving_engine import (
    Behave,
    Exchange,
    MisbehavingEngine,
    answers,
    closes_kept_alive,
    event,
    fails_in_its_stream,
    resets,
    says_garbage,
    sends_too_much,
    well,
)
from tests.proxy.harness import edge_before, stream_request


async def sends_a_head_and_resets(exchange: Exchange) -> None:
    await exchange.send(exchange.stream_head())
    await asyncio.sleep(0.05)
    exchange.reset()


@pytest.mark.parametrize(
    ("behave", "ending", "cause"),
    [
        pytest.param(resets, Ending.FAILED, "closed", id="reset"),
        pytest.param(sends_a_head_and_resets, Ending.FAILED, "closed", id="reset-after-head"),
        pytest.param(says_garbage, Ending.FAILED, "protocol", id="not-http"),
        pytest.param(sends_too_much, Ending.FAILED, "protocol", id="two-answers"),
        pytest.param(answers(503), Ending.REJECTED, "refused", id="503"),
        pytest.param(answers(502), Ending.REJECTED, "status_502", id="502"),
        pytest.param(answers(503, "retry-after: 3"), Ending.REJECTED, "refused", id="503-later"),
        pytest.param(answers(429, "retry-after: 3"), Ending.REJECTED, "refused", id="429-later"),
    ],
)
async def test_what_fails_before_its_first_byte_is_answered_by_another_engine(
    behave: Behave, ending: Ending, cause: str
) -> None:
    broken, other = await MisbehavingEngine(behave).start(), await MisbehavingEngine(well).start()
    async with edge_before(broken, other) as edge:
        reply = await edge.ask(stream=True)

        assert (reply.status, reply.headers["x-lodestar-engine"]) == (200, "e1")
        assert reply.headers["x-lodestar-attempts"] == "2"
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert edge.recorder.outcomes[0].ending is ending
        assert edge.troubled == ([EngineId("e0")] if ending is Ending.FAILED else [])
        assert edge.counted("engine_failures", engine="e0", cause=cause, broken="no") == 1
        assert edge.recorder.decisions[1].excluded == {EngineId("e0"): "failed this request"}
        assert edge.inflight() == 0
    await broken.stop()
    await other.stop()
    assert (len(broken.posts), len(other.posts)) == (1, 1)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        pytest.param(429, (), id="429-says-the-client-is-over-its-quota"),
        pytest.param(500, (), id="500-may-be-the-requests-own-fault"),
        pytest.param(400, (), id="400"),
        pytest.param(504, (), id="504-has-taken-its-time-already"),
    ],
)
async def test_other_statuses_are_the_clients(status: int, headers: tuple[str, ...]) -> None:
    first, other = (
        await MisbehavingEngine(answers(status, *headers)).start(),
        await MisbehavingEngine(well).start(),
    )
    async with edge_before(first, other) as edge:
        reply = await edge.ask()

        assert (reply.status, reply.body) == (status, b'{"error":{"message":"no"}}')
    await first.stop()
    await other.stop()
    assert other.posts == []


@pytest.mark.parametrize("behave", [answers(500), fails_in_its_stream])
async def test_statuses_that_are_retried_are_a_setting(behave: Behave) -> None:
    dying, other = await MisbehavingEngine(behave).start(), await MisbehavingEngine(well).start()
    async with edge_before(dying, other, retry_also=[500]) as edge:
        reply = await edge.ask(stream=True)

        assert (reply.status, reply.headers["x-lodestar-engine"]) == (200, "e1")
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert edge.counted("engine_failures", engine="e0", cause="status_500", broken="no") == 1
    await dying.stop()
    await other.stop()


async def test_refusal_without_another_engine_passes_as_it_is() -> None:
    engine = await MisbehavingEngine(answers(503, "retry-after: 7")).start()
    async with edge_before(engine) as edge:
        reply = await edge.ask()

        assert (reply.status, reply.headers["retry-after"]) == (503, "7")
        assert reply.body == b'{"error":{"message":"no"}}'
    await engine.stop()


async def test_last_refusal_is_what_the_client_gets() -> None:
    engines = [await MisbehavingEngine(answers(503)).start() for _ in range(3)]
    async with edge_before(*engines) as edge:
        reply = await edge.ask()

        assert (reply.status, reply.headers["x-lodestar-attempts"]) == (503, "2")
    for engine in engines:
        await engine.stop()
    assert sum(len(engine.posts) for engine in engines) == 2  # one retry


async def test_connection_of_a_refusal_is_used_again() -> None:
    refuses = await MisbehavingEngine(answers(502)).start()
    other = await MisbehavingEngine(well).start()
    async with edge_before(refuses, other) as edge:
        for _ in range(4):
            await edge.ask()

    await refuses.stop()
    await other.stop()
    assert len(refuses.posts) > 1
    assert refuses.connections == 1


async def test_dead_engines_cost_neither_retries_nor_budget() -> None:
    dead = [MisbehavingEngine(well) for _ in range(4)]
    for engine in dead:
        await engine.start()
        await engine.stop()
    alive = await MisbehavingEngine(well).start()
    async with edge_before(*dead, alive, retry_ratio=0.0) as edge:
        reply = await edge.ask()

        assert (reply.status, reply.headers["x-lodestar-engine"]) == (200, "e4")
        assert [state.up for state in edge.fleet] == [False] * 4 + [True]
    await alive.stop()


async def test_retries_end_when_the_budget_is_spent() -> None:
    broken = [await MisbehavingEngine(resets).start() for _ in range(2)]
    async with edge_before(*broken, retry_ratio=0.1, retry_burst=5.0) as edge:
        for _ in range(50):
            assert (await edge.ask()).status == 502

        sent = sum(len(engine.posts) for engine in broken)
        assert 50 < sent <= 50 + 5 + 0.1 * 50
        assert edge.counted("retries_denied") == 2 * 50 - sent
    for engine in broken:
        await engine.stop()


async def test_engine_that_closes_a_kept_alive_connection_may_have_begun() -> None:
    engine = await MisbehavingEngine(closes_kept_alive).start()
    async with edge_before(engine) as edge:
        assert [(await edge.ask()).status for _ in range(2)] == [200, 502]
        assert edge.counted("engine_failures", engine="e0", cause="stale", broken="no") == 1
        assert edge.circuit().describe(0.0)["failures_in_a_row"] == 0

    await engine.stop()
    assert len(engine.posts) == 2  # and was not asked a third time


async def test_engine_that_closes_a_kept_alive_connection_is_asked_again_if_allowed() -> None:
    engine = await MisbehavingEngine(closes_kept_alive).start()
    async with edge_before(engine, resend=True) as edge:
        assert [(await edge.ask()).status for _ in range(3)] == [200, 200, 200]

    await engine.stop()
    assert engine.connections == 3


async def test_fresh_connection_that_is_reset_is_never_resent() -> None:
    engine = await MisbehavingEngine(resets).start()
    async with edge_before(engine, resend=True) as edge:
        assert (await edge.ask()).status == 502

    await engine.stop()
    assert len(engine.posts) == 1


async def test_client_that_leaves_while_its_request_waits_to_be_retried() -> None:
    async def refuses_slowly(exchange: Exchange) -> None:
        await asyncio.sleep(0.1)
        exchange.reset()

    broken = [await MisbehavingEngine(refuses_slowly).start() for _ in range(2)]
    async with edge_before(*broken) as edge:
        asking = asyncio.gather(*(edge.ask(stream=True) for _ in range(5)), return_exceptions=True)
        await asyncio.sleep(0.12)
        for client in edge.clients:
            client.writer.transport.abort()
        await asking
        await asyncio.sleep(0.3)

        assert edge.inflight() == 0
        assert not edge.server.connections
    for engine in broken:
        await engine.stop()


async def test_nothing_is_retried_after_the_first_byte() -> None:
    async def one_token(exchange: Exchange) -> None:
        await exchange.send(exchange.stream_head(), event("a"))
        await asyncio.sleep(0.05)
        exchange.reset()

    broken, other = (
        await MisbehavingEngine(one_token).start(),
        await MisbehavingEngine(well).start(),
    )
    async with edge_before(broken, other) as edge:
        client = await edge.client()
        await client.send(stream_request())
        await asyncio.wait_for(client.reader.read(), 10)

    await broken.stop()
    await other.stop()
    assert (len(broken.posts), len(other.posts)) == (1, 0)
