"""What both engines of a disaggregated request get, byte by byte, and what their answers do."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, Reply, completion, post

ORCHESTRATED, BY_ITSELF = "disaggregated_prefill_orchestrated", "disaggregated_prefill"
PARAMS = {
    "do_remote_prefill": True,
    "do_remote_decode": False,
    "remote_block_ids": [[4, 5]],
    "remote_engine_id": "e-1",
    "remote_request_id": "cmpl-r1-0",
    "remote_host": "localhost",
    "remote_port": 5600,
}


class PrefillEngine(FakeEngine):
    """Answers with a status, and kv_transfer_params."""

    status = 200
    params: dict[str, Any] | None = PARAMS
    body: str | None = None

    async def _whole(self, request: web.Request) -> web.Response:
        if self.body is not None:
            return web.Response(text=self.body, status=self.status)
        content: dict[str, Any] = {
            "choices": [],
            "usage": self._usage(),
            "kv_transfer_params": self.params,
        }
        return web.json_response(content, status=self.status)


@dataclass
class Wire:
    """One engine of each role."""

    router: Router
    port: int
    prefill: PrefillEngine
    decode: FakeEngine

    async def ask(self, *headers: str, path: str = "/v1/completions", **fields: Any) -> Reply:
        client = await RawClient.to(self.port)
        await client.send(post(path, completion(**fields), *headers))
        reply = await client.reply()
        await client.close()
        return reply

    def got(self, engine: FakeEngine) -> tuple[str, dict[str, str], dict[str, Any]]:
        """Target, headers and body of an engine's only request."""
        ((target, headers, body),) = engine.requests
        return target, {name.lower(): value for name, value in headers.items()}, json.loads(body)


@asynccontextmanager
async def wire(logic: str = ORCHESTRATED, flags: str = "", **environ: str) -> AsyncIterator[Wire]:
    prefill, decode = PrefillEngine(), FakeEngine()
    for engine in (prefill, decode):
        await engine.start()
    argv = [
        *("--static-backends", f"{prefill.url},{decode.url}", "--static-model-labels", "p,d"),
        *("--prefill-model-labels", "p", "--decode-model-labels", "d", "--routing-logic", logic),
        *(
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-trainer",
            "--pd-policy",
            "roundrobin",
            *flags.split(),
        ),
    ]
    router = Router(parse(argv, environ))
    try:
        yield Wire(router, await router.start(), prefill, decode)
    finally:
        await router.stop(drain_s=0.5)
        await prefill.stop()
        await decode.stop()


async def test_orchestrated_legs_on_the_wire() -> None:
    async with wire() as it:
        reply = await it.ask(
            "X-Request-Id: r1", "Authorization: Bearer sk-1", "Accept-Encoding: gzip",
            path="/v1/completions?debug=1", max_tokens=9, min_tokens=2, stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip

        assert reply.status == 200
        targets, headers, (prefill, decode) = zip(
            *(it.got(engine) for engine in (it.prefill, it.decode)), strict=True
        )
        assert set(targets) == {"/v1/completions?debug=1"}
        assert [each["x-request-id"] for each in headers] == ["r1", "r1"]
        assert [each["authorization"] for each in headers] == ["Bearer sk-1"] * 2
        assert [each["content-type"] for each in headers] == ["application/json"] * 2
        assert [each.get("accept-encoding") for each in headers] == [None, "gzip"]
        assert prefill == {
            "model": "tiny",
            "prompt": "hello",
            "max_tokens": 1,
            "stream": False,
            "kv_transfer_params": {
                "do_remote_decode": True,
                "do_remote_prefill": False,
                "remote_engine_id": None,
                "remote_block_ids": None,
                "remote_host": None,
                "remote_port": None,
            },
        }
        assert decode == {
            **completion(max_tokens=9, min_tokens=2, stream=True),
            "stream_options": {"include_usage": True},
            "kv_transfer_params": {**PARAMS, "remote_host": "127.0.0.1"},
        }


async def test_the_other_protocol_sends_the_client_s_body_to_decode_as_it_is() -> None:
    async with wire(BY_ITSELF) as it:
        await it.ask(max_tokens=9, max_completion_tokens=8)

        _, _, prefill = it.got(it.prefill)
        assert prefill == {"model": "tiny", "prompt": "hello", "max_tokens": 1, "stream": False}
        ((_, _, body),) = it.decode.requests
        assert body == json.dumps(completion(max_tokens=9, max_completion_tokens=8)).encode()


@pytest.mark.parametrize("logic", [ORCHESTRATED, BY_ITSELF])
async def test_engines_get_their_own_key_where_the_client_has_none(logic: str) -> None:
    async with wire(logic, "--api-key-env KEY", KEY="engine-key") as it:
        await it.ask()

        for engine in (it.prefill, it.decode):
            assert it.got(engine)[1]["authorization"] == "Bearer engine-key"


async def test_a_client_cannot_name_where_to_fetch_from() -> None:
    async with wire() as it:
        it.prefill.params = None
        await it.ask(kv_transfer_params={"do_remote_prefill": True, "remote_host": "evil"})

        assert "remote_host" not in (it.got(it.decode)[2].get("kv_transfer_params") or {})
        assert it.got(it.prefill)[2]["kv_transfer_params"]["do_remote_decode"] is True


async def test_an_engine_without_a_connector_is_named_in_the_log_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with wire() as it:
        it.prefill.params = None
        replies = [await it.ask() for _ in range(2)]

        assert [reply.headers["x-lodestar-prefill-skipped"] for reply in replies] == [
            "nothing_handed_over"
        ] * 2
        assert caplog.text.count("is its KV connector configured?") == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(500, None, id="an-error"),
        pytest.param(503, None, id="overloaded"),
        pytest.param(200, "no JSON", id="no-JSON"),
    ],
)
async def test_where_prefill_fails_decode_gets_the_whole_request(
    status: int, body: str | None
) -> None:
    async with wire() as it:
        it.prefill.status, it.prefill.body = status, body
        reply = await it.ask(stream=True)

        assert reply.status == 200
        assert reply.headers["x-lodestar-prefill-skipped"] == "failed"
        assert it.got(it.decode)[2] == completion(stream=True)


@pytest.mark.parametrize(
    ("status", "fallback"), [(500, "false"), (401, "true"), (400, "true"), (400, "false")]
)
async def test_else_the_prefill_engine_s_answer_is_the_client_s(status: int, fallback: str) -> None:
    async with wire(flags=f"--pd-fallback {fallback}") as it:
        it.prefill.status, it.prefill.body = status, "why not"
        reply = await it.ask("X-Request-Id: r1", stream=True)

        assert (reply.status, reply.body) == (status, b"why not")
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        assert reply.headers["x-request-id"] == "r1"
        assert reply.headers["x-lodestar-engine"] == f"127.0.0.1:{it.prefill.port}"
        assert it.decode.requests == []


async def test_an_answer_without_json_is_502_where_decode_may_not_compute_the_prompt() -> None:
    async with wire(flags="--pd-fallback no") as it:
        it.prefill.body = "no JSON"
        reply = await it.ask()

        assert reply.status == 502


async def test_decode_s_refusal_goes_to_the_client_as_it_is() -> None:
    async with wire(flags="--pd-fallback no") as it:
        it.decode.behaviour = "error"
        reply = await it.ask()

        assert (reply.status, reply.json()) == (500, {"error": {"message": "no"}})
        assert reply.headers["x-lodestar-prefill-engine"] == f"127.0.0.1:{it.prefill.port}"
