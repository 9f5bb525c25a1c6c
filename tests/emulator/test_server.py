"""One emulated engine, as its clients meet it."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest
import zmq
import zmq.asyncio

from lodestar_router.emulator.server import EmulatedServer
from lodestar_router.engines.metrics_text import parse_metrics
from lodestar_router.errors import ConfigError
from lodestar_router.tasks import spawn
from tests.emulator.server_rig import (
    MODEL,
    block_numbers,
    cached,
    call,
    complete,
    language,
    serving,
    settings,
    until,
)

CHAT = "/v1/chat/completions"


async def chat(server: EmulatedServer, messages: list[dict[str, str]], **extra: Any) -> Any:
    body = {"model": MODEL, "messages": messages, **extra}
    answer = await call(server.url, CHAT, body)
    assert answer.status == 200, answer.body
    return answer.json()


async def test_max_tokens_are_made_and_without_it_the_answer_ends_by_itself() -> None:
    async with serving(settings(speed=1000)) as server:
        question = [{"role": "user", "content": "Hello?"}]

        limited = await chat(server, question, max_tokens=7)
        free = await chat(server, question)

        assert limited["choices"][0]["finish_reason"] == "length"
        assert limited["usage"]["completion_tokens"] == 7
        assert free["choices"][0]["finish_reason"] == "stop"
        assert free["usage"]["completion_tokens"] > 1


async def test_min_tokens_and_ignore_eos_hold_an_answer_up() -> None:
    async with serving(settings(speed=1000, max_model_len=600)) as server:
        question = [{"role": "user", "content": "Hello?"}]

        held = await chat(server, question, min_tokens=500)
        endless = await chat(server, question, ignore_eos=True)

        assert held["usage"]["completion_tokens"] >= 500
        assert endless["usage"]["total_tokens"] == 600


async def test_greedy_answers_repeat_and_seeds_tell_answers_apart() -> None:
    async with serving() as server:

        async def text(**extra: Any) -> str:
            body = {"model": MODEL, "prompt": "Once", "max_tokens": 8, **extra}
            answer = await call(server.url, "/v1/completions", body)
            return str(answer.json()["choices"][0]["text"])

        assert await text(temperature=0) == await text(temperature=0)
        assert await text(seed=5) == await text(seed=5) != await text(seed=6)
        assert await text() != await text()


async def test_a_streamed_answer_says_the_same_as_its_token_ids() -> None:
    async with serving() as server:
        body = {
            "model": MODEL, "prompt": "Once", "max_tokens": 30, "stream": True,
            "return_token_ids": True, "n": 2,
        }  # fmt: skip

        chunks = (await call(server.url, "/v1/completions", body)).chunks()

        for index in (0, 1):
            mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
            ids = [token for choice in mine for token in choice["token_ids"]]
            assert "".join(choice["text"] for choice in mine) == language().decode(ids)
            assert len(ids) == 30
            assert [choice["finish_reason"] for choice in mine][-1] == "length"


async def test_the_answer_sent_back_in_the_next_turn_is_found_in_the_cache() -> None:
    async with serving() as server:
        messages = [{"role": "user", "content": "Tell me a story. " * 8}]
        first = await chat(server, messages, max_tokens=100)
        reply = first["choices"][0]["message"]["content"]
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": "Go on."}]

        second = await chat(server, messages, max_tokens=4)

        computed = first["usage"]["prompt_tokens"] + 100 - 1  # the last token never was
        assert cached(second) == computed // 16 * 16


async def post(http: aiohttp.ClientSession, server: EmulatedServer, body: Any) -> Any:
    return await http.post(f"{server.url}/v1/completions", json=body)


async def test_a_client_that_leaves_frees_its_blocks() -> None:
    async with serving(settings(speed=5, max_model_len=4000)) as server:
        model = server.engine.model
        body = {"model": MODEL, "prompt": [7] * 100, "max_tokens": 3000, "ignore_eos": True}

        for stream in (True, False):
            async with aiohttp.ClientSession() as http:
                sent = spawn(post(http, server, body | {"stream": stream}), name="client")
                await until(lambda: model.num_running_reqs == 1)
                if stream:
                    answer = await sent
                    await answer.content.readline()
                    answer.close()
                else:
                    sent.cancel()
            await until(lambda: not model.has_work)

            assert model.free_blocks == model.config.num_blocks - 1
        await until(lambda: server.engine.requests == 0)
        page = (await call(server.url, "/metrics")).body
        report = parse_metrics(page)
        assert (report.num_running_reqs, report.num_waiting_reqs) == (0, 0)
        assert b'model_name="llama-3-8b",finished_reason="abort"} 2.0' in page


async def test_speed_divides_every_time() -> None:
    async def took_s(speed: float) -> float:
        async with serving(settings(speed=speed)) as server:
            started_s = time.monotonic()
            await complete(server, [5] * 50, max_tokens=20)
            return time.monotonic() - started_s

    # An A30 needs about 0.5 s for it.
    slow_s, quick_s = await took_s(2.0), await took_s(200.0)

    assert slow_s > 0.2
    assert quick_s < slow_s / 2


async def test_small_endpoints_say_what_vllm_says() -> None:
    async with serving() as server:
        card = (await call(server.url, "/v1/models")).json()["data"][0]
        ids = (await call(server.url, "/tokenize", {"prompt": " kami sodu"})).json()["tokens"]
        text = (await call(server.url, "/detokenize", {"tokens": ids[1:]})).json()["prompt"]

        assert (await call(server.url, "/health")).body == b""
        assert (await call(server.url, "/version")).json() == {"version": "0.32.0"}
        assert (await call(server.url, "/load")).json() == {"server_load": 0}
        assert (card["id"], card["root"], card["owned_by"]) == (MODEL, language().root, "vllm")
        assert text == " kami sodu"
        sources = (await call(server.url, "/kv_event_sources")).json()
        assert sources["0"]["endpoint"] == f"tcp://127.0.0.1:{server.ports.kv_events}"


async def test_a_taken_port_is_a_config_error_and_leaves_nothing_open() -> None:
    async with serving() as server:
        context: zmq.Context[Any] = zmq.Context()
        second = EmulatedServer(server.settings, language(), context=context)

        with pytest.raises(ConfigError, match="cannot bind"):
            await second.start()

        context.destroy(linger=0)
        assert (await call(server.url, "/health")).status == 200


async def test_many_requests_at_once_all_end_with_what_they_asked_for() -> None:
    async with serving(settings(speed=1000, kv_blocks=60, max_model_len=400)) as server:
        bodies = [
            {
                "model": MODEL, "prompt": block_numbers(k % 7, 20 + 9 * k), "ignore_eos": True,
                "max_tokens": 1 + k, "stream": k % 2 == 0, "stream_options":
                {"include_usage": True} if k % 2 == 0 else None,
            }
            for k in range(24)
        ]  # fmt: skip

        answers = await asyncio.gather(
            *(call(server.url, "/v1/completions", body) for body in bodies)
        )

        for k, answer in enumerate(answers):
            last = answer.chunks()[-1] if k % 2 == 0 else json.loads(answer.body)
            assert last["usage"]["completion_tokens"] == 1 + k
            assert last["usage"]["prompt_tokens"] == 20 + 9 * k
        assert server.engine.model.free_blocks == 59
