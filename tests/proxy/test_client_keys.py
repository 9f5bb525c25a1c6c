"""Who is let in, to what, and where keys end up."""

import asyncio

import pytest

from lodestar_router.config.client_keys import ClientKey
from tests.fake_engine import FakeEngine
from tests.proxy.harness import completion, edge_before, post

KEYS = (
    ClientKey("team-a", "secret-one"),
    ClientKey("team-a", "secret-two"),
    ClientKey("ops", "secret-three", admin=True),
)


def request(method: str, path: str, *headers: str) -> bytes:
    if method == "POST":
        return post(path, completion(), *headers)
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: router", *headers, "\r\n"]).encode()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        pytest.param("X: y", 401, id="none"),
        pytest.param("Authorization: Bearer secret-one", 200, id="bearer"),
        pytest.param("Authorization: bearer  secret-two", 200, id="second-key-and-any-case"),
        pytest.param("x-api-key: secret-one", 200, id="as-anthropic-s-clients"),
        pytest.param("Authorization: Bearer secret-on", 401, id="beginning-of-one"),
        pytest.param("Authorization: Bearer secret-one2", 401, id="more-than-one"),
        pytest.param("Authorization: Bearer ", 401, id="empty"),
        pytest.param("Authorization: Basic secret-one", 401, id="other-scheme"),
        pytest.param("Authorization: Bearer team-a:secret-one", 401, id="with-its-name"),
        pytest.param("Authorization: Bearer \xff\xfe", 401, id="no-ascii"),
    ],
)
async def test_only_known_keys_are_let_in(header: str, status: int) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine, keys=KEYS) as edge:
        client = await edge.client()
        await client.send(post("/v1/completions", completion(), header))
        reply = await client.reply()

        assert reply.status == status
        assert len(engine.requests) == (status == 200)
        if status == 401:
            assert reply.json()["error"]["code"] == "invalid_api_key"
            assert reply.headers["www-authenticate"] == "Bearer"
            assert edge.counted("refused_requests", code="invalid_api_key") == 1
        else:
            assert edge.counted("client_requests", client="team-a") == 1
    await engine.stop()


@pytest.mark.parametrize(
    ("method", "path", "nobody", "a_client", "an_admin"),
    [
        ("GET", "/health", 200, 200, 200),
        ("GET", "/ready", 200, 200, 200),
        ("GET", "/metrics", 200, 200, 200),
        ("GET", "/version", 200, 200, 200),
        ("GET", "/v1/models", 401, 200, 200),
        ("POST", "/v1/completions", 401, 200, 200),
        ("GET", "/engines", 401, 403, 200),
        ("GET", "/debug/config", 401, 403, 200),
        ("GET", "/debug/decisions", 401, 403, 200),
        ("GET", "/debug/config?x=/health", 401, 403, 200),
        ("GET", "/nothing", 401, 404, 404),
        ("GET", "//debug/config", 401, 404, 404),
    ],
)
async def test_who_may_use_what(
    method: str, path: str, nobody: int, a_client: int, an_admin: int
) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine, keys=KEYS) as edge:
        statuses = []
        for key in ("", "secret-one", "secret-three"):
            client = await edge.client()
            await client.send(request(method, path, *([f"x-api-key: {key}"] if key else [])))
            statuses.append((await client.reply()).status)

        assert statuses == [nobody, a_client, an_admin]
    await engine.stop()


async def test_without_keys_everybody_may_do_everything() -> None:
    async with edge_before() as edge:
        client = await edge.client()
        await client.send(request("GET", "/debug/config"))

        assert (await client.reply()).status == 200


async def test_a_client_s_key_does_not_reach_the_engine() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine, keys=KEYS) as edge:
        reply = await edge.ask("Authorization: Bearer secret-one", "x-api-key: secret-one", "X: y")

        _, headers, _ = engine.requests[0]
        assert reply.status == 200
        assert "secret" not in str(headers)
        assert headers.get("X") or headers.get("x")
    await engine.stop()


async def test_new_keys_open_and_old_ones_close_while_a_stream_goes_on() -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 0.1
    async with edge_before(engine, keys=KEYS) as edge:
        client = await edge.client()
        await client.send(
            post("/v1/completions", completion(stream=True), "Authorization: Bearer secret-one")
        )
        await client.head()

        edge.server.keys.use([ClientKey("new", "secret-new")])
        old, new = await asyncio.gather(
            edge.ask("x-api-key: secret-one"), edge.ask("x-api-key: secret-new")
        )
        body = b"".join([chunk async for chunk in client.chunks()])

        assert (old.status, new.status) == (401, 200)
        assert body.endswith(b"data: [DONE]\n\n")
        assert b'client="team-a"' not in edge.metrics.exposition()
    await engine.stop()
