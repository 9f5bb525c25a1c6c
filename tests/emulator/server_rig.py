"""Emulated engines served to a test, and a client that reads them as the openai package does."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, NamedTuple

import aiohttp
import zmq

from lodestar_router.emulator.build import EngineSettings
from lodestar_router.emulator.server import EmulatedServer
from lodestar_router.emulator.server_language import Language
from lodestar_router.emulator.server_settings import ServerSettings

MODEL = "llama-3-8b"
SPEED = 100.0  # steps of an A30 then take about 0.3 ms


@cache
def language() -> Language:
    """The built-in one, loaded once."""
    return Language()


def settings(speed: float = SPEED, topic: str = "", **engine: Any) -> ServerSettings:
    return ServerSettings(
        engine=EngineSettings(**{"gpu": "A30", "kv_blocks": 400, **engine}),
        speed=speed,
        kv_topic=topic,
    )


@asynccontextmanager
async def serving(given: ServerSettings | None = None) -> AsyncIterator[EmulatedServer]:
    context: zmq.Context[Any] = zmq.Context()
    server = EmulatedServer(given or settings(), language(), context=context)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
        context.destroy(linger=0)


class Answer(NamedTuple):
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def chunks(self) -> list[dict[str, Any]]:
        """The objects of an SSE answer, which must end as one does."""
        frames = self.body.decode().split("\n\n")
        assert frames[-2:] == ["data: [DONE]", ""]
        return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


async def call(url: str, path: str, body: Any = None) -> Answer:
    method = "GET" if body is None else "POST"
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    async with aiohttp.ClientSession() as http, http.request(method, url + path, data=data) as got:
        return Answer(got.status, await got.read())


async def complete(server: EmulatedServer, prompt: Any, max_tokens: int = 4) -> Any:
    """A completion's JSON; it must succeed."""
    body = {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True}
    answer = await call(server.url, "/v1/completions", body)
    assert answer.status == 200, answer.body
    return answer.json()


async def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + limit_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come to that"
        await asyncio.sleep(0.005)


def cached(answer: Any) -> int:
    """The cached tokens that an answer reports."""
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def block_numbers(first: int, count: int) -> list[int]:
    """Token ids that no other prompt of the test has."""
    return [1000 + (first * 7919 + k) % 5000 for k in range(count)]
