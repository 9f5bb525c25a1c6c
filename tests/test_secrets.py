"""What must stay inside a running router, and what may not get into its log."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, Reply, completion, get, post

ENVIRON = {"ENGINE_KEY": "engine-secret", "VLLM_API_KEY": "probe-secret"}
ADMIN = "x-api-key: client-secret"


@asynccontextmanager
async def routing(engine: FakeEngine, *flags: str) -> AsyncIterator[tuple[Router, int]]:
    argv = ["--engines", engine.url, "--host", "127.0.0.1", "--port", "0", "--no-trainer"]
    argv += ["--routing-logic", "roundrobin", "--log-level", "debug", *flags]
    router = Router(parse(argv, ENVIRON), lambda: parse(argv, ENVIRON))
    try:
        yield router, await router.start()
    finally:
        await router.stop(drain_s=0.5)


async def exchange(port: int, raw: bytes) -> Reply:
    client = await RawClient.to(port)
    await client.send(raw)
    reply = await client.reply()
    await client.close()
    return reply


async def test_keys_are_in_no_answer_and_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    keys = tmp_path / "keys"
    keys.write_text("ops:client-secret admin")
    engine = await FakeEngine().start()
    flags = ("--api-key-env", "ENGINE_KEY", "--client-keys-file", str(keys))
    async with routing(engine, *flags) as (_, port):
        replies = [await exchange(port, post("/v1/completions", completion(), ADMIN))]
        for path in ("/engines", "/debug/config", "/debug/decisions", "/metrics", "/v1/models"):
            raw = get(path).replace(b"\r\n\r\n", f"\r\n{ADMIN}\r\n\r\n".encode())
            replies.append(await exchange(port, raw))
        engine.behaviour = "reset"
        replies.append(await exchange(port, post("/v1/completions", completion(), ADMIN)))
        sent = {name.lower(): value for name, value in engine.requests[0][1].items()}

    assert [reply.status for reply in replies] == [200] * 6 + [502]
    assert sent["authorization"] == "Bearer engine-secret"
    assert "x-api-key" not in sent
    assert "-secret" not in caplog.text
    assert not any("-secret" in f"{reply.headers}{reply.body!r}" for reply in replies)
    await engine.stop()


async def test_a_file_of_keys_is_followed(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a:client-secret")
    engine = await FakeEngine().start()
    async with routing(engine, "--client-keys-file", str(keys)) as (router, port):
        before = await exchange(port, post("/v1/completions", completion(), ADMIN))
        keys.write_text("a:other-secret")
        await router.reload()
        after = await exchange(port, post("/v1/completions", completion(), ADMIN))
        keys.write_text("")
        kept = await router.reload()
        still = await exchange(
            port, post("/v1/completions", completion(), "x-api-key: other-secret")
        )

    assert (before.status, after.status, kept, still.status) == (200, 401, False, 200)
    await engine.stop()


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("a\nWARNING forged", id="line-end"),
        pytest.param("a\x1b[31m", id="terminal-escape"),
        pytest.param("a\u2028b", id="line-separator"),
        pytest.param("a\x00", id="nul"),
        pytest.param("m" * 100_000, id="long"),
    ],
)
async def test_what_is_no_name_of_a_model_is_refused_and_not_repeated(
    model: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    engine = await FakeEngine().start()
    async with routing(engine) as (_, port):
        reply = await exchange(port, post("/v1/completions", {"model": model, "prompt": "x"}))

    assert (reply.status, len(reply.body) < 300) == (400, True)
    assert json.dumps(model)[1:-1].encode() not in reply.body
    assert model not in caplog.text
    assert engine.requests == []
    await engine.stop()


@pytest.mark.parametrize(
    "given", ["has space", "\x80\xff", "x" * 129, "tab\there", "a\x1b[31m", ""], ids=repr
)
async def test_what_is_no_request_id_is_replaced(
    given: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    engine = await FakeEngine().start()
    async with routing(engine) as (_, port):
        raw = post("/v1/completions", completion(), "X: y")
        raw = raw.replace(b"X: y", b"x-request-id: " + given.encode("latin-1"))
        reply = await exchange(port, raw)

    if reply.status == 200:  # llhttp refuses some
        assert len(reply.headers["x-request-id"]) == 32
        assert {k.lower(): v for k, v in engine.requests[0][1].items()}[
            "x-request-id"
        ] == reply.headers["x-request-id"]
    else:
        assert reply.status == 400
    assert not given or given not in caplog.text
    await engine.stop()
