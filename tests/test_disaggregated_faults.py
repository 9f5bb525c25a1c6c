"""Disaggregated prefill where engines fail, and clients leave."""

import asyncio

import pytest

from lodestar_router.emulator.server_settings import KvConnector
from tests.disaggregated_rig import NIXL, SHARED, SLOW, Legs, at, events, legs
from tests.emulator.server_rig import until

both_protocols = pytest.mark.parametrize("connector", [NIXL, SHARED], ids=str)
# At this speed a prompt of 2,000 tokens takes half a second, the messages around it do not.
LONG = [11] * 2000


async def at_work(it: Legs, *servers: int, role: str) -> int:
    """The first of the engines of a role to have a request."""
    engines = it.prefill if role == "prefill" else it.decode
    await until(lambda: any(engine.engine.requests for engine in engines))
    return next(number for number, engine in enumerate(engines) if engine.engine.requests)


@both_protocols
async def test_without_prefill_engines_the_decode_engine_computes_the_prompt(
    connector: KvConnector,
) -> None:
    async with legs(connector, strict=False) as it:
        for server in it.prefill:
            await server.stop()

        replies = [await it.ask(stream=True, tokens=5) for _ in range(4)]

        assert {reply.status for reply in replies} == {200}
        assert all(len(events(reply)) == 5 for reply in replies)
        assert {reply.headers["x-lodestar-prefill-skipped"] for reply in replies} <= {
            "failed",
            "no_engine",
        }
        assert replies[-1].headers["x-lodestar-prefill-skipped"] == "no_engine"
        await until(it.idle)


@both_protocols
async def test_where_that_is_not_allowed_the_request_fails(connector: KvConnector) -> None:
    async with legs(connector, flags="--pd-fallback false") as it:
        for server in it.prefill:
            await server.stop()
        await until(lambda: sum(state.up for state in it.router.fleet) == 2)

        reply = await it.ask()

        assert reply.status == 503
        message = reply.json()["error"]["message"]
        assert message.startswith("PREFILL_SERVICE_UNAVAILABLE: no prefill engine can serve")


async def test_a_prefill_engine_that_dies_at_work_is_replaced_by_another() -> None:
    async with legs(prefill_speed=2.0) as it:
        client = await it.send(prompt=LONG)
        number = await at_work(it, role="prefill")
        await it.prefill[number].stop()
        reply = await client.reply()

        assert reply.status == 200
        assert reply.headers["x-lodestar-prefill-engine"] == at(it.prefill[1 - number])
        assert it.fetched == 1
        await until(it.idle)


async def test_a_prefill_engine_that_dies_at_work_without_another_leaves_it_to_decode() -> None:
    async with legs(strict=False, prefill_speed=2.0, labels="p,x,d,d") as it:
        client = await it.send(prompt=LONG, stream=True)
        number = await at_work(it, role="prefill")
        await it.prefill[number].stop()
        reply = await client.reply()

        assert number == 0
        assert len(events(reply)) == 4
        assert reply.headers["x-lodestar-prefill-skipped"] == "failed"


async def test_a_prompt_that_cannot_be_fetched_is_computed_by_the_decode_engine() -> None:
    async with legs(strict=False, lease_s=0.0, labels="p,p,d,x") as it:
        reply = await it.ask(stream=True)

        assert len(events(reply)) == 4
        assert reply.headers["x-lodestar-prefill-skipped"] == "not_fetched"
        assert reply.headers["x-lodestar-engine"] == at(it.decode[0])
        assert (it.counted("handed_over"), it.counted("not_fetched")) == (1, 1)
        circuit = it.router.fleet[at(it.decode[0])].circuit
        assert circuit.describe(0.0)["failures_in_a_row"] == 0
        await until(it.idle)


async def test_where_that_is_not_allowed_the_engine_s_error_is_the_answer() -> None:
    async with legs(lease_s=0.0, flags="--pd-fallback false") as it:
        reply = await it.ask()

        assert reply.status == 500
        assert "not computed here, or is gone" in reply.json()["error"]["message"]


async def test_a_decode_engine_that_dies_before_its_first_byte_has_the_prefill_repeated() -> None:
    # 100 tokens are 13 MB: on their way for 0.3 s at 100 times that speed.
    async with legs(gbytes_per_s=4e-4) as it:
        lines = it.written()
        client = await it.send("x-request-id: r1")
        await until(lambda: it.handed_over == 1)
        calls = [state.inflight_requests for state in it.router.fleet]
        dying = it.decode[calls[2:].index(1)]
        await dying.stop()
        reply = await client.reply()

        assert reply.status == 200
        assert reply.headers["x-lodestar-engine"] != at(dying)
        assert reply.headers["x-lodestar-attempts"] == "2"
        assert it.handed_over == 2  # a handover serves once
        assert reply.headers["x-lodestar-cached-tokens"] == "96"  # and its prompt was cached
        assert len(lines) == 2
        await until(it.idle)


async def test_a_decode_engine_that_is_not_there_costs_no_second_prefill() -> None:
    async with legs(flags="--pd-policy roundrobin") as it:
        await it.decode[0].stop()

        replies = [await it.ask() for _ in range(4)]

        assert {reply.status for reply in replies} == {200}
        assert it.handed_over == 4
        assert {reply.headers["x-lodestar-engine"] for reply in replies} == {at(it.decode[1])}


@both_protocols
async def test_a_decode_engine_that_dies_within_its_answer_ends_the_stream_with_an_error(
    connector: KvConnector,
) -> None:
    async with legs(connector, decode_speed=1.0) as it:
        client = await it.send(stream=True, tokens=200)
        status, headers = await client.head()
        dying = next(s for s in it.decode if at(s) == headers["x-lodestar-engine"])
        await dying.stop()
        rest = await asyncio.wait_for(client.reader.read(), 10)

        assert status == 200
        assert b"event: error" in rest
        assert b"[DONE]" not in rest
        await until(it.idle)


@both_protocols
async def test_a_client_that_leaves_a_slow_prefill_ends_it(connector: KvConnector) -> None:
    async with legs(connector, prefill_speed=2.0) as it:
        client = await it.send(prompt=LONG, stream=True)
        await at_work(it, role="prefill")
        await client.close()

        await until(it.idle)
        await asyncio.sleep(SLOW)
        assert it.counted("handed_over") == 0
        assert it.fetched == 0


@both_protocols
async def test_a_client_that_leaves_a_slow_answer_ends_it(connector: KvConnector) -> None:
    async with legs(connector, decode_speed=1.0) as it:
        client = await it.send(tokens=200)
        await at_work(it, role="decode")
        await client.close()

        await until(it.idle)


async def test_a_prefill_engine_that_says_nothing_is_left_alone() -> None:
    async with legs(
        strict=False, prefill_speed=0.01, labels="p,x,d,d", flags="--hang-timeout 0.5"
    ) as it:
        client = await it.send(prompt=LONG)
        circuit = it.router.fleet[at(it.prefill[0])].circuit
        await until(lambda: not circuit.clear)
        reply = await it.ask()

        assert "no token for 0.5 s" in circuit.reason
        assert reply.headers["x-lodestar-prefill-skipped"] == "no_engine"
        await client.close()
        await until(it.idle)


async def test_a_deadline_ends_a_slow_prefill_with_504() -> None:
    async with legs(prefill_speed=0.5) as it:
        reply = await it.ask("x-request-timeout: 0.2", prompt=LONG)

        assert reply.status == 504
        assert reply.json()["error"]["code"] == "request_timeout"
        await until(it.idle)


@both_protocols
@pytest.mark.parametrize(
    ("labels", "word"),
    [
        pytest.param("x,x,x,x", "DECODE", id="unknown-labels"),
        pytest.param("p,p,x,x", "DECODE", id="no-decode-engine"),
    ],
)
async def test_without_decode_engines_nothing_can_be_answered(
    connector: KvConnector, labels: str, word: str
) -> None:
    async with legs(connector, labels=labels) as it:
        reply = await it.ask()

        assert reply.status == 503
        assert reply.headers["retry-after"] == "1"
        error = reply.json()["error"]
        assert error["message"].startswith(f"{word}_SERVICE_UNAVAILABLE: no decode engine")
        assert error["code"] == "no_engine_available"
        assert it.handed_over == 0


async def test_an_unknown_model_is_404() -> None:
    async with legs() as it:
        reply = await it.ask(model="other")

        assert reply.status == 404
