"""Audio and images on their way to an engine, over real sockets."""

import os

import pytest

from tests.fake_engine import FakeEngine
from tests.proxy.forms import form, part, post_form
from tests.proxy.harness import edge_before, post

PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits")


@pytest.mark.parametrize("path", PATHS)
async def test_a_form_reaches_the_engine_byte_for_byte(path: str) -> None:
    engine = await FakeEngine().start()
    body = form(
        part("file", os.urandom(300_000), filename="speech.wav"),
        part("timestamp_granularities[]", b"word"),
        part("model", b"tiny"),
        part("temperature", b"0.20"),
    )
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(post_form(path, body, "X-Request-Id: mine"))
        reply = await client.reply()

        target, given, received = engine.requests[0]
        headers = {name.lower(): value for name, value in given.items()}
        assert (reply.status, target) == (200, path)
        assert received == body
        assert headers["content-type"].startswith("multipart/form-data; boundary=")
        assert headers["x-request-id"] == reply.headers["x-request-id"] == "mine"
        assert edge.inflight() == 0
    await engine.stop()


async def test_an_alias_is_replaced_in_the_form() -> None:
    engine = await FakeEngine().start()
    body = form(part("file", b"RIFF alias", filename="alias"), part("model", b"alias"))
    async with edge_before(engine) as edge:
        edge.routes.aliases = {"alias": "tiny"}
        client = await edge.client()
        await client.send(post_form(PATHS[0], body))

        assert (await client.reply()).status == 200
        assert engine.requests[0][2] == body.replace(b"\r\n\r\nalias\r\n", b"\r\n\r\ntiny\r\n")
    await engine.stop()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param(form(part("file", b"x", filename="f")), 400, "no 'model'", id="no-model"),
        pytest.param(form(part("model", b"tiny"))[:-8], 400, "last boundary", id="cut-off"),
        pytest.param(form(part("model", b"other")), 404, "'other'", id="unknown-model"),
        pytest.param(form(part("model", b"a\nb")), 400, "name of a model", id="no-name"),
    ],
)
async def test_a_bad_form_is_refused_and_the_connection_goes_on(
    body: bytes, status: int, message: str
) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(post_form(PATHS[0], body, "X-Request-Id: mine"))
        reply = await client.reply()

        assert (reply.status, reply.headers["x-request-id"]) == (status, "mine")
        assert message in reply.json()["error"]["message"]
        assert engine.requests == []
        await client.send(post_form(PATHS[0], form(part("model", b"tiny"))))
        assert (await client.reply()).status == 200
    await engine.stop()


async def test_json_is_taken_where_a_form_is() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(post(PATHS[1], {"model": "tiny", "file": "..."}))

        assert (await client.reply()).status == 200
    await engine.stop()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /v1/audio/voices?model=tiny", 200),
        ("GET /v1/audio/voices", 400),
        ("GET /v1/audio/voices?model=other", 404),
        ("POST /v1/audio/voices", 405),
    ],
)
async def test_voices_are_asked_of_an_engine_of_the_model(request_line: str, status: int) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(f"{request_line} HTTP/1.1\r\nHost: router\r\n\r\n".encode())

        assert (await client.reply()).status == status
        assert len(engine.requests) == (status == 200)
    await engine.stop()


async def test_a_model_in_a_get_s_body_is_found_as_production_stack_wants_it() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(
            b"GET /v1/audio/voices HTTP/1.1\r\nHost: r\r\nContent-Length: 17\r\n\r\n"
            b'{"model": "tiny"}'
        )

        assert (await client.reply()).status == 200
    await engine.stop()
