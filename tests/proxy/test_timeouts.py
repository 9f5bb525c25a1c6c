"""Engines and clients that let others wait: every limit ends its request, none stays."""

import asyncio
import socket

import pytest

from lodestar_router.core.types import Ending, EngineId
from lodestar_router.proxy.deadlines import Timeouts
from tests.misbehaving_engine import (
    Behave,
    Exchange,
    MisbehavingEngine,
    drips_its_head,
    hangs,
    head_then_hangs,
    head_without_end,
    stalls_mid_stream,
    well,
)
from tests.proxy.harness import completion, edge_before, post, until


def limits(
    *,
    first_byte_s: float = 30.0,
    idle_s: float = 30.0,
    total_s: float = 30.0,
    head_s: float = 30.0,
    connect_s: float = 1.0,
) -> Timeouts:
    return Timeouts(
        connect_s=connect_s,
        first_byte_s=first_byte_s,
        idle_s=idle_s,
        total_s=total_s,
        head_s=head_s,
    )


@pytest.mark.parametrize(
    ("behave", "timeouts", "headers", "status", "code"),
    [
        pytest.param(hangs, limits(first_byte_s=0.3), (), 504, "engine_timeout", id="first-byte"),
        pytest.param(
            head_then_hangs, limits(first_byte_s=0.3), (), 504, "engine_timeout", id="only-a-head"
        ),
        pytest.param(
            drips_its_head, limits(head_s=0.3), (), 502, "engine_failed", id="slow-loris-head"
        ),
        pytest.param(head_without_end, limits(), (), 502, "engine_failed", id="endless-head"),
        pytest.param(hangs, limits(total_s=0.3), (), 504, "request_timeout", id="total"),
        pytest.param(
            hangs, limits(), ("x-request-timeout: 0.3",), 504, "request_timeout", id="own-total"
        ),
        pytest.param(
            head_then_hangs,
            limits(),
            ("X-First-Byte-Timeout: 0.3",),
            504,
            "engine_timeout",
            id="own-first-byte",
        ),
    ],
)
async def test_engine_that_does_not_answer_in_time_is_given_up(
    behave: Behave, timeouts: Timeouts, headers: tuple[str, ...], status: int, code: str
) -> None:
    engine = await MisbehavingEngine(behave).start()
    async with edge_before(engine, timeouts=timeouts) as edge:
        reply = await edge.ask(*headers, stream=True)

        assert (reply.status, reply.json()["error"]["code"]) == (status, code)
        assert edge.inflight() == 0
    await engine.stop()
    assert len(engine.posts) == 1


@pytest.mark.parametrize(
    ("timeouts", "header"),
    [
        pytest.param(limits(idle_s=0.3), "x-a: b", id="idle"),
        pytest.param(limits(), "x-idle-timeout: 0.3", id="own-idle"),
        pytest.param(limits(total_s=0.3), "x-a: b", id="total"),
    ],
)
async def test_stream_that_stops_is_ended_with_an_error(timeouts: Timeouts, header: str) -> None:
    engine = await MisbehavingEngine(stalls_mid_stream).start()
    async with edge_before(engine, timeouts=timeouts) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(stream=True), header))
        rest = await asyncio.wait_for(client.reader.read(), 10)

        assert b"event: error" in rest
        assert b"_timeout" in rest
        assert edge.inflight() == 0
        await until(lambda: engine.aborted == 1)
    await engine.stop()


async def test_silent_engine_is_not_asked_twice_nor_another_one() -> None:
    silent, other = await MisbehavingEngine(hangs).start(), await MisbehavingEngine(well).start()
    async with edge_before(silent, other, timeouts=limits(first_byte_s=0.3)) as edge:
        assert (await edge.ask()).status == 504

    await silent.stop()
    await other.stop()
    assert (len(silent.posts), len(other.posts)) == (1, 0)


async def test_slow_stream_that_goes_on_is_left_alone() -> None:
    async def slowly(exchange: Exchange) -> None:
        await exchange.send(exchange.stream_head())
        for _ in range(8):
            await exchange.send(b"1\r\nx\r\n")  # equal pieces are progress too
            await asyncio.sleep(0.15)
        await exchange.send(b"0\r\n\r\n")

    engine = await MisbehavingEngine(slowly).start()
    async with edge_before(engine, timeouts=limits(idle_s=0.8)) as edge:
        assert (await edge.ask(stream=True)).body == b"x" * 8
    await engine.stop()


async def test_connection_that_nobody_accepts_times_out_and_another_engine_answers() -> None:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)  # a full backlog: the system drops what else arrives
    filling = [socket.socket() for _ in range(4)]
    for one in filling:
        one.setblocking(False)
        one.connect_ex(listening.getsockname())
    full, other = MisbehavingEngine(well), await MisbehavingEngine(well).start()
    full.port = listening.getsockname()[1]
    async with edge_before(full, other, timeouts=limits(connect_s=0.3)) as edge:
        reply = await edge.ask()

        assert (reply.status, reply.headers["x-lodestar-engine"]) == (200, "e1")
        assert edge.counted("engine_failures", engine="e0", cause="unreachable", broken="no") == 1
        assert edge.fleet[EngineId("e0")].up  # perhaps it is only busy
    for one in (*filling, listening):
        one.close()
    await other.stop()


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "inf"])
async def test_timeout_that_is_no_number_of_seconds_is_the_clients_error(value: str) -> None:
    engine = await MisbehavingEngine(well).start()
    async with edge_before(engine) as edge:
        reply = await edge.ask(f"x-request-timeout: {value}")

        assert reply.status == 400
        assert "x-request-timeout" in reply.json()["error"]["message"]
    await engine.stop()
    assert engine.posts == []


async def test_client_in_a_hurry_cannot_open_an_engines_circuit() -> None:
    engine = await MisbehavingEngine(hangs).start()
    async with edge_before(engine) as edge:
        replies = await asyncio.gather(
            *(edge.ask("x-first-byte-timeout: 0.1", stream=True) for _ in range(20))
        )

        assert {reply.status for reply in replies} == {504}
        assert edge.circuit().clear
    await engine.stop()


async def test_client_that_reads_nothing_is_cut_off_and_its_request_aborted() -> None:
    async def floods(exchange: Exchange) -> None:
        await exchange.send(exchange.stream_head())
        while True:
            await exchange.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")

    engine = await MisbehavingEngine(floods).start()
    async with edge_before(engine, timeouts=limits(idle_s=0.5)) as edge:
        client = await edge.client()
        await client.send(post("/v1/completions", completion(stream=True)))
        await client.head()

        await until(lambda: bool(edge.recorder.outcomes) and not edge.inflight())

        assert edge.recorder.outcomes[-1].ending is Ending.CANCELLED
        assert edge.circuit().clear
    await engine.stop()
