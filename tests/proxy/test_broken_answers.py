"""What a client sees of an answer that its engine broke: never a whole one."""

import asyncio
import json
from collections.abc import AsyncIterable

import aiohttp
import pytest

from lodestar_router.core.types import Ending
from tests.misbehaving_engine import (
    Behave,
    Exchange,
    MisbehavingEngine,
    breaks_its_framing,
    breaks_mid_event,
    breaks_mid_stream,
    chunk,
    event,
    head,
    sends_too_little,
    well,
)
from tests.proxy.harness import RawClient, completion, edge_before, post, stream_request


async def everything(client: RawClient) -> bytes:
    """All bytes until the router closes the connection."""
    return await asyncio.wait_for(client.reader.read(), 10)


async def collect(source: AsyncIterable[bytes], into: list[bytes]) -> None:
    """Keep what comes until there is no more, or no more can come."""
    async for piece in source:
        into.append(piece)  # noqa: PERF401 - what came before an exception counts


def last_event(body: bytes) -> tuple[str, dict[str, object]]:
    """(name, data) of a stream's last event."""
    block = body.rstrip(b"\r\n").split(b"\n\n")[-1].strip().decode()
    fields = dict(line.split(": ", 1) for line in block.splitlines())
    return fields["event"], json.loads(fields["data"])


@pytest.mark.parametrize("behave", [breaks_mid_stream, breaks_mid_event, breaks_its_framing])
async def test_stream_that_breaks_ends_with_an_error_event_and_a_closed_connection(
    behave: Behave,
) -> None:
    broken, other = await MisbehavingEngine(behave).start(), await MisbehavingEngine(well).start()
    async with edge_before(broken, other) as edge:
        client = await edge.client()
        await client.send(stream_request())

        answer = await everything(client)

        name, data = last_event(answer)
        assert (name, data["type"]) == ("error", "error")
        error = data["error"]
        assert isinstance(error, dict)
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] == "engine_failed"
        assert b"[DONE]" not in answer
        assert not answer.endswith(b"0\r\n\r\n")
        assert edge.recorder.outcomes[-1].ending is Ending.FAILED
        assert edge.inflight() == 0
    await broken.stop()
    await other.stop()
    assert other.posts == []


@pytest.mark.parametrize("behave", [breaks_mid_stream, breaks_mid_event])
async def test_a_client_library_reads_the_error_event(behave: Behave) -> None:
    engine = await MisbehavingEngine(behave).start()
    async with edge_before(engine) as edge, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{edge.port}/v1/completions"
        pieces: list[bytes] = []
        async with session.post(url, json=completion(stream=True)) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await collect(answer.content.iter_any(), pieces)

        assert last_event(b"".join(pieces))[0] == "error"
    await engine.stop()


async def test_event_that_does_not_fit_into_what_is_left_of_a_chunk_gets_its_own() -> None:
    async def breaks_before_the_end_of_a_chunk(exchange: Exchange) -> None:
        await exchange.send(exchange.stream_head(), event("a"), event("b")[:-5])
        await asyncio.sleep(0.05)
        exchange.reset()

    engine = await MisbehavingEngine(breaks_before_the_end_of_a_chunk).start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(stream_request())
        await client.head()

        chunks: list[bytes] = []
        with pytest.raises((asyncio.IncompleteReadError, ValueError)):
            await collect(client.chunks(), chunks)

        assert chunks[1].startswith(b'data: {"choices": [{"index": 0, "text": "b"')
        assert last_event(b"".join(chunks))[0] == "error"
    await engine.stop()


async def test_http_1_0_client_gets_the_event_without_framing() -> None:
    engine = await MisbehavingEngine(breaks_mid_stream).start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(post("/v1/completions", completion(stream=True), version="1.0"))

        answer = await everything(client)

        assert last_event(answer)[0] == "error"
        assert b"\r\n" not in answer.partition(b"\r\n\r\n")[2]
    await engine.stop()


async def breaks_json_in_chunks(exchange: Exchange) -> None:
    start = head(200, "content-type: application/json", "transfer-encoding: chunked")
    await exchange.send(start + chunk(b'{"choices":['))
    await asyncio.sleep(0.05)
    exchange.reset()


async def breaks_compressed_stream(exchange: Exchange) -> None:
    kind = ("content-type: text/event-stream", "content-encoding: gzip")
    await exchange.send(head(200, *kind, "transfer-encoding: chunked") + chunk(b"\x1f\x8b"))
    await asyncio.sleep(0.05)
    exchange.reset()


@pytest.mark.parametrize(
    "behave", [sends_too_little, breaks_json_in_chunks, breaks_compressed_stream]
)
async def test_answer_that_can_hold_no_event_is_cut_short(behave: Behave) -> None:
    engine = await MisbehavingEngine(behave).start()
    async with edge_before(engine) as edge, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{edge.port}/v1/completions"

        with pytest.raises(aiohttp.ClientError):
            async with session.post(url, json=completion(), auto_decompress=False) as answer:
                await answer.read()

        assert edge.recorder.outcomes[-1].ending is Ending.FAILED
        assert edge.inflight() == 0
    await engine.stop()


async def test_body_without_a_length_ends_with_a_reset_not_as_if_it_were_whole() -> None:
    engine = await MisbehavingEngine(breaks_json_in_chunks).start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(post("/v1/completions", completion(), version="1.0"))

        with pytest.raises(ConnectionResetError):
            await everything(client)
    await engine.stop()


async def test_answer_that_never_began_is_a_502() -> None:
    async def half_a_head(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-le")
        exchange.close()

    engine = await MisbehavingEngine(half_a_head).start()
    async with edge_before(engine) as edge:
        reply = await edge.ask()

        assert (reply.status, reply.json()["error"]["code"]) == (502, "engine_failed")
    await engine.stop()


async def test_error_names_no_address_of_an_engine() -> None:
    engine = MisbehavingEngine(well)
    await engine.start()
    await engine.stop()
    async with edge_before(engine) as edge:
        for _ in range(2):  # unreachable, then marked down
            reply = await edge.ask()

            assert reply.status in (502, 503)
            assert str(engine.port) not in reply.body.decode()
            assert "127.0.0.1" not in reply.body.decode()
