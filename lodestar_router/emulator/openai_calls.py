"""Calls of /v1/chat/completions and /v1/completions: from the request to the last byte.

    body -> token ids -> one engine request per choice -> chunks as they are made

In       HTTP requests.
Out      JSON, or SSE as it is generated.
Cost     about 0.3 ms and the tokenizing, and 30 us per streamed chunk.
Errors   ApiError and RequestError, for http_api to word. A client that leaves
         aborts its request, streamed or not.
Source   vllm/entrypoints/openai/{chat_completion,completion}/serving.py at v0.32.0.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import xxhash
from aiohttp import web

from lodestar_router.core.block_keys import TokenArray
from lodestar_router.emulator.kv_transfer import KvSide, Received
from lodestar_router.emulator.openai_answers import Choice, Writer
from lodestar_router.emulator.openai_requests import (
    ApiError,
    GenerationRequest,
    check_model,
    read_generation,
    too_long,
)
from lodestar_router.emulator.sequence import EmulatedRequest
from lodestar_router.emulator.server_engine import RealTimeEngine
from lodestar_router.emulator.server_language import Language

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

_LONG_TEXT_BYTES = 20_000  # from here tokenizing would hold up the steps of all engines


class Completions:
    """Answers the completions of one engine."""

    def __init__(
        self,
        engine: RealTimeEngine,
        language: Language,
        *,
        model: str,
        kv_side: KvSide | None = None,
    ) -> None:
        self._kv_side = kv_side
        self._engine = engine
        self._language = language
        self._model = model
        self._max_model_len = engine.model.config.max_model_len
        self.calls = 0  # now being answered

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One call.

        Raises:
            ApiError: it is refused.
            RequestError: this engine could never run it.
        """
        body = await json_body(request)
        check_model(body, self._model)
        wanted = read_generation(body, chat=request.path == CHAT, max_model_len=self._max_model_len)
        prompts = await self._prompts(request, body)
        news = asyncio.Event()
        given = request.headers.get("X-Request-Id")
        received: Received | None = None
        if self._kv_side is not None:
            received = await self._kv_side.receive(body, given, prompts)
        name = given or secrets.token_hex(8)
        answer_id = f"{'chatcmpl' if wanted.chat else 'cmpl'}-{name}"
        # Two calls may bear one name; the engine needs them apart.
        ids = f"{answer_id}-{secrets.token_hex(4)}"
        choices: list[Choice] = []
        self.calls += 1
        try:
            for prompt in prompts:
                for number in range(wanted.choices):
                    choices.append(
                        self._submit(ids, len(choices), number, prompt, wanted, news.set, received)
                    )
            writer = Writer(
                wanted,
                answer_id=answer_id,
                model=self._model,
                created_s=now_s(),
                prompts=[prompt.tolist() for prompt in prompts],
                choices=choices,
            )
            if received is not None:
                writer.remote_cached_tokens = received.cached_tokens
            if wanted.stream:
                return await _stream(request, writer, news)
            await _finished(writer, news)
            if self._kv_side is not None:
                done = choices[0].progress.sequence
                writer.kv_transfer_params = self._kv_side.offer(body, given, prompts[0], done)
            return web.Response(body=writer.whole(), content_type="application/json")
        finally:
            self.calls -= 1
            for choice in choices:
                self._engine.abort(choice.progress.sequence.request_id)

    def _submit(
        self,
        ids: str,
        index: int,
        number: int,
        prompt: TokenArray,
        wanted: GenerationRequest,
        changed: Callable[[], None],
        received: Received | None,
    ) -> Choice:
        room = self._max_model_len - len(prompt)
        most = room if wanted.max_tokens is None else min(wanted.max_tokens, room)
        seed = _seed(prompt, number, wanted.seed)
        # A length that is asked for is kept: loads are described by it.
        may_end = wanted.max_tokens is None and not wanted.ignore_eos
        answer = self._language.answer(seed, most, chat=wanted.chat, may_end=may_end)
        if len(answer.token_ids) < wanted.min_tokens:
            count = min(most, wanted.min_tokens)
            answer = self._language.answer(seed, count, chat=wanted.chat, may_end=False)
        progress = self._engine.submit(
            EmulatedRequest(
                request_id=f"{ids}-{index}",
                token_ids=prompt,
                max_tokens=len(answer.token_ids),
                arrived_at_s=self._engine.clock(),
                answer=answer.token_ids,
                transferred=received is not None,
            ),
            changed,
            ended_early=answer.ended,
        )
        return Choice(index, progress, answer)

    async def _prompts(self, request: web.Request, body: Mapping[str, Any]) -> Sequence[TokenArray]:
        encode = self._language.encode
        if (request.content_length or 0) > _LONG_TEXT_BYTES:
            prompts = await asyncio.to_thread(encode, request.path, body)
        else:
            prompts = encode(request.path, body)
        for prompt in prompts:
            if len(prompt) >= self._max_model_len:
                raise too_long(len(prompt), self._max_model_len)
        return prompts


async def _stream(request: web.Request, writer: Writer, news: asyncio.Event) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    opening = b"".join(writer.opening())
    while not writer.finished:
        await news.wait()
        news.clear()
        await response.write(opening + writer.chunks())
        opening = b""
    await response.write(writer.closing())
    await response.write_eof()
    return response


async def _finished(writer: Writer, news: asyncio.Event) -> None:
    while not all(choice.progress.finished for choice in writer.choices):
        await news.wait()
        news.clear()


def _seed(prompt: TokenArray, number: int, seed: int | None) -> int:
    """What an answer's words are drawn by; without a seed no two answers are alike."""
    if seed is None:
        return secrets.randbits(64)
    return xxhash.xxh3_64_intdigest(prompt.tobytes(), seed=(seed * 1_000_003 + number) % 2**64)


async def json_body(request: web.Request) -> dict[str, Any]:
    """The object a request carries.

    Raises:
        ApiError: it carries something else.
    """
    try:
        body = msgspec.json.decode(await request.read())
    except msgspec.DecodeError as error:
        raise ApiError(f"JSON decode error: {error}", kind="Bad Request") from error
    if not isinstance(body, dict):
        raise ApiError("Input should be a valid dictionary", kind="Bad Request", param="body")
    return body


def now_s() -> int:
    """Unix time."""
    return time.time_ns() // 1_000_000_000
