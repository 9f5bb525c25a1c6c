"""What crosses the router, and what must not: over real sockets."""

import asyncio

import pytest

from lodestar_router.core.types import Ending
from tests.fake_engine import FakeEngine
from tests.proxy.harness import completion, edge_before, post


async def test_body_query_and_status_pass_unchanged() -> None:
    engine = await FakeEngine().start()
    body = b'{ "model" : "tiny",  "prompt": "\\u00e9", "unknown": [1.0, 1e2] }'
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions?a=1&b=%20x", body))
        reply = await client.reply()

        assert reply.status == 200
        assert reply.json()["choices"][0]["text"] == "xxx"
        target, _, received = engine.requests[0]
        assert (target, received) == ("/v1/completions?a=1&b=%20x", body)
    await engine.stop()


async def test_hop_by_hop_headers_stay_behind_and_others_cross() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(
            post(
                "/v1/completions",
                completion(),
                "Authorization: Bearer client",
                "Connection: keep-alive, X-Secret",
                "X-Secret: 1",
                "TE: trailers",
                "Proxy-Authorization: Basic eA==",
                "X-Custom: kept",
                "X-Request-Id: mine-1",
            )
        )
        reply = await client.reply()

        headers = {name.lower(): value for name, value in engine.requests[0][1].items()}
        assert headers["x-custom"] == "kept"
        assert headers["authorization"] == "Bearer client"
        assert headers["x-request-id"] == "mine-1"
        assert not {"x-secret", "te", "proxy-authorization", "connection"} & headers.keys()
        assert reply.headers["x-request-id"] == "mine-1"
        assert reply.headers["x-lodestar-engine"] == "e0"
    await engine.stop()


async def test_stream_arrives_chunk_by_chunk_and_labels_its_first_token() -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 0.1
    async with edge_before(engine) as edge:
        client = await edge.client()
        loop = asyncio.get_running_loop()

        await client.send(post("/v1/chat/completions", completion(stream=True)))
        status, headers = await client.head()
        arrivals = [(chunk, loop.time()) async for chunk in client.chunks()]

        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert arrivals[-1][1] - arrivals[0][1] > 0.15
        assert b"".join(chunk for chunk, _ in arrivals).endswith(b"data: [DONE]\n\n")
        first, last = edge.recorder.outcomes
        assert (first.ending, last.ending) == (None, Ending.COMPLETED)
        assert first.ttft_s is not None
        assert first.ttft_s < last.waited_s - 0.15
        assert edge.inflight() == 0
    await engine.stop()


@pytest.mark.parametrize(
    ("fields", "reports_usage", "output_tokens"),
    [
        pytest.param({}, True, 3, id="whole-answer"),
        pytest.param({"stream": True}, True, 3, id="stream-with-usage"),
        pytest.param({"stream": True}, False, 3, id="stream-by-its-events"),
        pytest.param({"stream": True, "n": 2}, True, None, id="several-answers"),
    ],
)
async def test_output_tokens_are_counted_at_the_end(
    fields: dict[str, object], reports_usage: bool, output_tokens: int | None
) -> None:
    engine = await FakeEngine().start()
    engine.reports_usage = reports_usage
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(**fields)))
        await client.reply()

        assert edge.recorder.outcomes[-1].output_tokens == output_tokens
    await engine.stop()


async def test_connections_are_kept_alive_on_both_sides() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()

        for stream in (False, True, False):
            await client.send(post("/v1/completions", completion(stream=stream)))
            assert (await client.reply()).status == 200

        assert len(engine.requests) == 3
        assert len(engine.peers) == 1
    await engine.stop()


async def test_pipelined_requests_are_answered_in_order() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(
            b"".join(post("/v1/completions", completion(), f"X-Request-Id: r{n}") for n in range(5))
        )
        ids = [(await client.reply()).headers["x-request-id"] for _ in range(5)]

        assert ids == ["r0", "r1", "r2", "r3", "r4"]
    await engine.stop()


async def test_http_1_0_client_gets_no_chunked_framing() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(stream=True), version="1.0"))
        reply = await client.reply()

        assert reply.headers["connection"] == "close"
        assert "transfer-encoding" not in reply.headers
        assert reply.body.startswith(b"data: {")
        assert reply.body.endswith(b"data: [DONE]\n\n")
    await engine.stop()


async def test_answer_that_ends_with_its_connection_is_whole() -> None:
    engine = await FakeEngine().start()
    engine.behaviour = "until_close"
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion()))
        reply = await client.reply()

        assert reply.json()["choices"][0]["text"] == "to the end"
        assert reply.headers["connection"] == "close"
        assert edge.recorder.outcomes[-1].ending is Ending.COMPLETED
    await engine.stop()
