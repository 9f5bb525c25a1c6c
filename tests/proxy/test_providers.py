"""Requests for a provider's models: what goes there, what comes back, what breaks."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from tests.fake_engine import FakeEngine
from tests.proxy.forms import form, part, post_form
from tests.proxy.harness import RawClient, Reply, completion, get, post, until


class Setup:
    """A router with one engine and one provider."""

    def __init__(self, router: Router, engine: FakeEngine, provider: FakeEngine, port: int) -> None:
        self.router = router
        self.engine = engine
        self.provider = provider
        self.port = port

    async def ask(self, model: str, *headers: str, **fields: Any) -> Reply:
        client = await RawClient.to(self.port)
        body = completion(model=model, **fields)
        await client.send(post("/v1/completions?a=1", body, *headers))
        reply = await client.reply()
        await client.close()
        return reply

    def counted(self, name: str, **labels: str) -> float:
        registry = self.router.metrics.registry
        return registry.get_sample_value(f"vllm:{name}", labels) or 0.0


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    engine, provider = await FakeEngine().start(), await FakeEngine(model="gpt-4o").start()
    path = tmp_path / "providers.yaml"
    entry = {
        "name": "openai", "type": "openai", "api_base": provider.url, "max_retries": 1,
        "timeout": 1, "custom_headers": {"X-Org": "o1"},
        "models": [{"id": "gpt-4o", "aliases": ["best"]}],
    }  # fmt: skip
    path.write_text(json.dumps({"external_providers": [entry]}))
    flags = ["--engines", engine.url, "--port", "0", "--host", "127.0.0.1", "--no-trainer"]
    flags += ["--static-aliases", "mine:best", "--external-providers-config", str(path)]
    router = Router(parse(flags, {"OPENAI_API_KEY": "sk-provider"}))
    port = await router.start()
    yield Setup(router, engine, provider, port)
    await router.stop(drain_s=0.1)
    await engine.stop()
    await provider.stop()


@pytest.mark.parametrize("model", ["gpt-4o", "best", "mine"])
@pytest.mark.parametrize("stream", [False, True])
async def test_provider_gets_its_model_its_key_and_nothing_of_the_client(
    setup: Setup, model: str, stream: bool
) -> None:
    reply = await setup.ask(
        model, "Authorization: Bearer sk-client", "Cookie: c", "X-Request-Id: r1", stream=stream
    )

    assert reply.status == 200
    assert reply.headers["x-request-id"] == "r1"
    ((target, headers, body),) = setup.provider.requests
    assert target == "/v1/completions"
    assert json.loads(body)["model"] == "gpt-4o"
    assert {name.lower(): value for name, value in headers.items()} == {
        "host": f"127.0.0.1:{setup.provider.port}",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "authorization": "Bearer sk-provider",
        "x-org": "o1",
        "x-request-id": "r1",
    }
    assert setup.engine.requests == []
    if stream:
        assert reply.body.endswith(b"data: [DONE]\n\n")


async def test_models_of_engines_go_to_engines(setup: Setup) -> None:
    assert (await setup.ask("tiny")).status == 200

    assert setup.provider.requests == []
    assert "/v1/completions?a=1" in [target for target, _, _ in setup.engine.requests]


async def test_models_are_listed_behind_those_of_engines(setup: Setup) -> None:
    client = await RawClient.to(setup.port)
    await client.send(get("/v1/models"))
    cards = (await client.reply()).json()["data"]
    await client.close()

    assert [card["id"] for card in cards] == ["tiny", "gpt-4o", "best"]
    assert cards[1]["owned_by"] == "openai"
    assert cards[1]["created"] > 1_700_000_000


async def test_what_the_provider_answers_is_the_answer(setup: Setup) -> None:
    setup.provider.behaviour = "error"

    reply = await setup.ask("gpt-4o")

    assert reply.status == 500
    assert len(setup.provider.requests) == 1


async def test_provider_that_is_not_there_is_asked_again_then_502(setup: Setup) -> None:
    await setup.provider.stop()

    reply = await setup.ask("gpt-4o")

    assert reply.status == 502
    assert "127.0.0.1" not in reply.body.decode()
    failed = {"server": "openai", "model": "gpt-4o", "error_type": "EngineUnreachableError"}
    assert setup.counted("request_errors_total", **failed) == 1
    assert setup.counted("num_incoming_requests_total", model="gpt-4o") == 1

    await setup.provider.start()
    assert (await setup.ask("gpt-4o")).status == 200


async def test_request_that_may_have_begun_is_not_sent_twice(setup: Setup) -> None:
    setup.provider.behaviour = "reset"

    assert (await setup.ask("gpt-4o")).status == 502

    assert len(setup.provider.requests) == 1


async def test_client_that_leaves_ends_its_request_there(setup: Setup) -> None:
    setup.provider.tokens, setup.provider.gap_s = 1000, 0.02
    client = await RawClient.to(setup.port)
    await client.send(post("/v1/completions", completion(model="best", stream=True)))
    await client.head()
    await client.close()

    await until(lambda: setup.provider.aborted == 1)


async def test_stream_that_breaks_ends_with_an_error_event(setup: Setup) -> None:
    setup.provider.tokens, setup.provider.gap_s = 3, 3.0  # the provider's timeout is 1 s
    client = await RawClient.to(setup.port)
    await client.send(post("/v1/completions", completion(model="best", stream=True)))
    await client.head()

    text = b"".join([chunk async for chunk in _until_closed(client)])
    await client.close()

    assert b"event: error" in text
    assert b"[DONE]" not in text


async def _until_closed(client: RawClient) -> AsyncIterator[bytes]:
    while data := await client.reader.read(65_536):
        yield data


async def test_cookies_of_a_provider_stay_with_the_router(setup: Setup) -> None:
    given = {"Set-Cookie": "session=1", "X-Ratelimit": "9"}
    setup.provider.answer_headers = setup.engine.answer_headers = given

    theirs, ours = await setup.ask("best"), await setup.ask("tiny")

    assert theirs.headers["X-Ratelimit".lower()] == "9"
    assert "set-cookie" not in theirs.headers
    assert ours.headers["set-cookie"] == "session=1"  # an engine's cross, as all it says


async def test_a_form_goes_to_a_provider_under_the_model_s_own_name(setup: Setup) -> None:
    speech = form(part("file", b"RIFF\x00", filename="a"), part("model", b"mine"))
    client = await RawClient.to(setup.port)
    await client.send(post_form("/v1/audio/transcriptions", speech))
    reply = await client.reply()
    await client.close()

    assert reply.status == 200
    sent = setup.provider.requests[-1][2]
    assert sent == speech.replace(b"\r\nmine\r\n", b"\r\ngpt-4o\r\n")
