"""What the edge itself answers or refuses: over real sockets."""

import asyncio
import json

import pytest

from lodestar_router.proxy.request_reader import Limits
from tests.fake_engine import FakeEngine
from tests.proxy.harness import Edge, completion, edge_before, get, post, until


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
        pytest.param(b"[" * 100_000, 400, "deeper than", id="too-deep"),
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


async def test_a_client_that_is_still_sending_gets_to_read_its_refusal() -> None:
    async with edge_before(limits=Limits(body_bytes=1000)) as edge:
        client = await edge.client()
        head = b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"

        await client.send(head)
        for _ in range(20):  # what nobody reads would turn the close into a reset
            await client.send(b"400\r\n" + b"x" * 0x400 + b"\r\n")
            await asyncio.sleep(0.01)
        reply = await client.reply()

        assert reply.status == 413
        client.writer.write_eof()
        await until(lambda: not edge.server.connections)


async def test_what_clients_make_up_leaves_no_series_behind() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        await edge.ask()
        for number in range(101):  # up to a hundred unknown models are counted by name
            await _make_up(edge, number)
        before = edge.metrics.exposition().count(b"\n")

        for number in range(101, 130):
            await _make_up(edge, number)

        assert edge.metrics.exposition().count(b"\n") == before
    await engine.stop()


async def _make_up(edge: Edge, number: int) -> None:
    client = await edge.client()
    name = f"made-up-{number}"
    asked = (
        post("/v1/completions", completion(model=name)),
        post(f"/v1/{name}", completion()),
        get(f"/{name}?{name}={name}"),
        post("/v1/completions", completion(user=name), f"x-request-id: {name}", f"x-{name}: 1"),
        post("/v1/completions", completion(), f"Authorization: Bearer {name}"),
    )
    for request in asked:
        await client.send(request)
        await client.reply()


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

        assert reply.status in (400, 431)
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


@pytest.mark.parametrize("prefix", ["/vllm", ""])
async def test_prefix_of_a_proxy_in_front_may_be_left_in_or_taken_off(prefix: str) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine, root_path="/vllm") as edge:
        client = await edge.client()
        await client.send(post(f"{prefix}/v1/completions?a=1", completion()))
        assert (await client.reply()).status == 200
        await client.send(get(f"{prefix}/health"))
        assert (await client.reply()).status == 200
        await client.send(get("/vllmx/health"))
        assert (await client.reply()).status == 404

        assert engine.requests[-1][0] == "/v1/completions?a=1"
    await engine.stop()
