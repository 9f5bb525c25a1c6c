"""What crosses the router, and what must not: over real sockets."""

import asyncio
import json

import pytest

from lodestar_router.core.types import Ending
from lodestar_router.proxy.client_connection import Limits
from lodestar_router.proxy.engine_pool import Timeouts
from tests.fake_engine import FakeEngine
from tests.proxy.harness import completion, edge_before, get, post


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


@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_aborts_its_engine_request(stream: bool) -> None:
    engine = await FakeEngine().start()
    engine.tokens, engine.gap_s = 100, 0.05
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(stream=stream)))
        while not engine.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await client.close()
        for _ in range(200):
            if engine.aborted and not edge.inflight():
                break
            await asyncio.sleep(0.01)

        assert engine.aborted == 1
        assert edge.inflight() == 0
        assert edge.recorder.outcomes[-1].ending is Ending.CANCELLED
    await engine.stop()


async def test_engine_error_status_passes_and_gives_no_label() -> None:
    engine = await FakeEngine().start()
    engine.behaviour = "error"
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(stream=True)))
        reply = await client.reply()

        assert (reply.status, reply.json()) == (500, {"error": {"message": "no"}})
        assert [o.ending for o in edge.recorder.outcomes] == [Ending.REJECTED]
        assert edge.recorder.outcomes[0].ttft_s is None
    await engine.stop()


@pytest.mark.parametrize("dead", ["reset", "stopped"])
async def test_engine_that_fails_before_its_first_byte_is_retried_elsewhere(dead: str) -> None:
    broken, healthy = await FakeEngine().start(), await FakeEngine().start()
    broken.behaviour = "reset"
    async with edge_before(broken, healthy) as edge:
        if dead == "stopped":
            await broken.stop()
        client = await edge.client()

        for _ in range(4):
            await client.send(post("/v1/completions", completion()))
            assert (await client.reply()).headers["x-lodestar-engine"] == "e1"

        assert len(healthy.requests) == 4
        assert "e0" in edge.troubled
        assert edge.inflight() == 0
    await broken.stop()
    await healthy.stop()


async def test_502_when_every_engine_fails() -> None:
    engines = [await FakeEngine().start() for _ in range(3)]
    for engine in engines:
        engine.behaviour = "reset"
    async with edge_before(*engines) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion()))
        reply = await client.reply()

        assert reply.status == 502
        assert reply.json()["error"]["code"] == "engine_failed"
        assert sum(len(engine.requests) for engine in engines) == 2  # one retry
    for engine in engines:
        await engine.stop()


async def test_stream_broken_after_its_first_byte_is_cut_never_answered_twice() -> None:
    broken, healthy = await FakeEngine().start(), await FakeEngine().start()
    broken.behaviour = "break"
    async with edge_before(broken, healthy) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(stream=True)))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError, ValueError)):
            await client.reply()

        assert healthy.requests == []
        assert edge.recorder.outcomes[-1].ending is Ending.FAILED
        assert edge.inflight() == 0
    await broken.stop()
    await healthy.stop()


async def test_silent_engine_is_a_504_and_not_retried() -> None:
    silent, healthy = await FakeEngine().start(), await FakeEngine().start()
    silent.behaviour = "hang"
    timeouts = Timeouts(connect_s=1.0, first_byte_s=0.3, idle_s=0.0, total_s=0.0)
    async with edge_before(silent, healthy, timeouts=timeouts) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion()))
        reply = await client.reply()

        assert reply.status == 504
        assert healthy.requests == []
    await silent.stop()
    await healthy.stop()


async def test_engine_that_stops_mid_stream_is_cut_off() -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 30.0
    timeouts = Timeouts(connect_s=1.0, first_byte_s=0.0, idle_s=0.3, total_s=0.0)
    async with edge_before(engine, timeouts=timeouts) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(stream=True)))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError, ValueError)):
            await client.reply()

        assert edge.inflight() == 0
    await engine.stop()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param(b"{", 400, "not valid JSON", id="not-json"),
        pytest.param(b"[1]", 400, "must be a JSON object", id="array"),
        pytest.param(b"{}", 400, "no 'model'", id="no-model"),
        pytest.param(b'{"model": null}', 400, "no 'model'", id="null-model"),
        pytest.param(b'{"model": ["a"]}', 400, "must be a string", id="list-model"),
        pytest.param(b'{"model": "\xff"}', 400, "not valid JSON", id="not-utf8"),
        pytest.param(b'{"model": "other"}', 404, "'other'", id="unknown-model"),
        pytest.param(b"[" * 100_000, 400, "JSON", id="too-deep"),
    ],
)
async def test_bad_request_is_an_openai_error_object(
    body: bytes, status: int, message: str
) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", body))
        reply = await client.reply()

        assert reply.status == status
        assert message in reply.json()["error"]["message"]
        assert reply.json()["error"].keys() == {"message", "type", "param", "code"}
        assert engine.requests == []
        await client.send(post("/v1/completions", completion()))
        assert (await client.reply()).status == 200
    await engine.stop()


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_too_large_body_is_413_and_closes(framing: str) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine, limits=Limits(body_bytes=1000)) as edge:
        client = await edge.client()

        if framing == "length":
            await client.send(b"POST /v1/completions HTTP/1.1\r\nContent-Length: 1001\r\n\r\n")
        else:
            head = b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            await client.send(head + b"400\r\n" + b"x" * 0x400 + b"\r\n")
        reply = await client.reply()

        assert (reply.status, reply.json()["error"]["code"]) == (413, "request_too_large")
        assert await client.closed()
    await engine.stop()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"NONSENSE\r\n\r\n", id="no-http"),
        pytest.param(b"GET / HTTP/1.1\nHost: a\n\n", id="bare-lf"),
        pytest.param(
            b"POST /v1/completions HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            id="two-lengths",
        ),
        pytest.param(
            b"POST /v1/completions HTTP/1.1\r\nContent-Length: 3\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length-and-chunked",
        ),
        pytest.param(b"GET /health HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", id="long-head"),
    ],
)
async def test_malformed_http_is_refused_and_closed(raw: bytes) -> None:
    async with edge_before() as edge:
        client = await edge.client()

        await client.send(raw)
        reply = await client.reply()

        assert reply.status in (400, 413)
        assert await client.closed()


async def test_control_endpoints_answer_and_unknown_paths_do_not() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        replies = {}

        for path in ("/health", "/version", "/v1/models", "/engines", "/metrics", "/nothing"):
            await client.send(get(path))
            replies[path] = await client.reply()
        await client.send(get("/v1/completions"))
        wrong_method = await client.reply()

        assert replies["/health"].json() == {"status": "healthy"}
        assert replies["/v1/models"].json() == {
            "object": "list",
            "data": [{"id": "tiny", "object": "model", "x": 1}],
        }
        assert b"lodestar:requests_total" in replies["/metrics"].body
        assert replies["/nothing"].status == 404
        assert (wrong_method.status, wrong_method.headers["allow"]) == (405, "POST")
    await engine.stop()


async def test_expect_continue_is_invited() -> None:
    engine = await FakeEngine().start()
    body = json.dumps(completion()).encode()
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(
            b"POST /v1/completions HTTP/1.1\r\nExpect: 100-continue\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        invited, _ = await client.head()
        await client.send(body)

        assert invited == 100
        assert (await client.reply()).status == 200
    await engine.stop()


async def test_slow_client_slows_its_engine_down_instead_of_filling_memory() -> None:
    engine = await FakeEngine().start()
    engine.tokens = 200_000  # about 12 MB of events
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(post("/v1/completions", completion(stream=True)))
        await client.head()

        await asyncio.sleep(0.5)

        (connection,) = edge.server.connections
        assert connection.transport.get_write_buffer_size() < 1_000_000
    await engine.stop()


async def test_stop_lets_running_streams_end() -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 0.1
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(post("/v1/completions", completion(stream=True)))
        await client.head()

        stopping = asyncio.get_running_loop().create_task(edge.server.stop(drain_s=5.0))
        body = b"".join([chunk async for chunk in client.chunks()])
        await stopping

        assert body.endswith(b"data: [DONE]\n\n")
        assert await client.closed()
    await engine.stop()


async def test_engine_that_dies_between_head_and_first_token_is_retried() -> None:
    dying, healthy = await FakeEngine().start(), await FakeEngine().start()
    dying.behaviour = "head_only"
    async with edge_before(dying, healthy) as edge:
        client = await edge.client()

        await client.send(post("/v1/completions", completion(stream=True)))
        reply = await client.reply()

        assert reply.headers["x-lodestar-engine"] == "e1"
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert [o.ending for o in edge.recorder.outcomes] == [
            Ending.FAILED,
            None,
            Ending.COMPLETED,
        ]
    await dying.stop()
    await healthy.stop()
