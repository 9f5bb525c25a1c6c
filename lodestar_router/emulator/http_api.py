"""vLLM's HTTP endpoints in front of an emulated engine.

In       HTTP requests.
Out      what vLLM 0.32 answers them; see openai_requests for what is left out.
Cost     per request about 0.3 ms and its tokenizing, per streamed chunk about 30 us.
Errors   error objects as vLLM words them. A client that leaves aborts its request.
Source   vllm/entrypoints/openai, vllm/entrypoints/serve at v0.32.0.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import xxhash
from aiohttp import web

from lodestar_router.core.block_keys import TokenArray
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
from lodestar_router.emulator.server_language import Language, TextError
from lodestar_router.emulator.server_metrics import EngineMetrics
from lodestar_router.errors import RequestError

VLLM_VERSION = "0.32.0"  # whose answers are given

_CHAT, _COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_MOST_BODY_BYTES = 1 << 30
_LONG_TEXT_BYTES = 20_000  # from here tokenizing would hold up the steps of all engines

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpApi:
    """The endpoints of one engine."""

    def __init__(
        self,
        engine: RealTimeEngine,
        language: Language,
        *,
        model: str,
        metrics: EngineMetrics,
        kv_sources: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._engine = engine
        self._language = language
        self._model = model
        self._metrics = metrics
        self._kv_sources = kv_sources
        self._max_model_len = engine.model.config.max_model_len
        self._started_s = _now_s()
        self._calls = 0  # completions now being made, for GET /load

    def application(self) -> web.Application:
        """The application to serve."""
        app = web.Application(client_max_size=_MOST_BODY_BYTES, middlewares=[_errors])
        routes: dict[tuple[str, str], _Handler] = {
            ("POST", _CHAT): self._completions,
            ("POST", _COMPLETIONS): self._completions,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
            ("POST", "/reset_prefix_cache"): self._reset_prefix_cache,
            ("GET", "/v1/models"): self._models,
            ("GET", "/metrics"): self._metrics_page,
            ("GET", "/kv_event_sources"): self._sources,
            ("GET", "/version"): _version,
            ("GET", "/health"): _empty,
            ("GET", "/ping"): _empty,
            ("GET", "/load"): self._load,
        }
        for (method, path), handler in routes.items():
            app.router.add_route(method, path, handler)
        return app

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        check_model(body, self._model)
        wanted = read_generation(
            body, chat=request.path == _CHAT, max_model_len=self._max_model_len
        )
        prompts = await self._prompts(request, body)
        news = asyncio.Event()
        name = request.headers.get("X-Request-Id") or secrets.token_hex(8)
        answer_id = f"{'chatcmpl' if wanted.chat else 'cmpl'}-{name}"
        # Two calls may bear one name; the engine needs them apart.
        ids = f"{answer_id}-{secrets.token_hex(4)}"
        choices: list[Choice] = []
        self._calls += 1
        try:
            for prompt in prompts:
                for number in range(wanted.choices):
                    choices.append(
                        self._submit(ids, len(choices), number, prompt, wanted, news.set)
                    )
            writer = Writer(
                wanted,
                answer_id=answer_id,
                model=self._model,
                created_s=_now_s(),
                prompts=[prompt.tolist() for prompt in prompts],
                choices=choices,
            )
            if wanted.stream:
                return await _stream(request, writer, news)
            return await _whole(writer, news)
        finally:
            self._calls -= 1
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

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await _body(request)
        check_model(body, self._model)
        ids = self._language.encode(request.path, body)[0].tolist()
        strings = self._language.tokens(ids) if body.get("return_token_strs") else None
        return _json_answer(
            {
                "count": len(ids),
                "max_model_len": self._max_model_len,
                "tokens": ids,
                "token_strs": strings,
            }
        )

    async def _detokenize(self, request: web.Request) -> web.Response:
        body = await _body(request)
        check_model(body, self._model)
        ids = body.get("tokens")
        if not isinstance(ids, list) or not all(isinstance(one, int) for one in ids):
            raise ApiError("tokens must be a list of token ids", param="tokens")
        return _json_answer({"prompt": self._language.decode(ids)})

    async def _models(self, _: web.Request) -> web.Response:
        permission = {
            "id": f"modelperm-{secrets.token_hex(8)}",
            "object": "model_permission",
            "created": self._started_s,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        card = {
            "id": self._model,
            "object": "model",
            "created": self._started_s,
            "owned_by": "vllm",
            "root": self._language.root,
            "parent": None,
            "max_model_len": self._max_model_len,
            "permission": [permission],
        }
        return _json_answer({"object": "list", "data": [card]})

    async def _metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.page(),
            headers={"Content-Type": "text/plain; version=1.0.0; charset=utf-8"},
        )

    async def _sources(self, _: web.Request) -> web.Response:
        return _json_answer(self._kv_sources())

    async def _load(self, _: web.Request) -> web.Response:
        return _json_answer({"server_load": self._calls})

    async def _reset_prefix_cache(self, _: web.Request) -> web.Response:
        return _json_answer({"success": self._engine.clear_prefix_cache()})


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


async def _whole(writer: Writer, news: asyncio.Event) -> web.Response:
    while not all(choice.progress.finished for choice in writer.choices):
        await news.wait()
        news.clear()
    return web.Response(body=writer.whole(), content_type="application/json")


@web.middleware
async def _errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _json_answer(error.body, error.status)
    except (TextError, RequestError) as error:
        return _json_answer(ApiError(str(error)).body, 400)
    except web.HTTPException as error:
        answer = _json_answer({"detail": error.reason}, error.status)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(await request.read())
    except msgspec.DecodeError as error:
        raise ApiError(f"JSON decode error: {error}", kind="Bad Request") from error
    if not isinstance(body, dict):
        raise ApiError("Input should be a valid dictionary", kind="Bad Request", param="body")
    return body


def _seed(prompt: TokenArray, number: int, seed: int | None) -> int:
    """What an answer's words are drawn by; without a seed no two answers are alike."""
    if seed is None:
        return secrets.randbits(64)
    return xxhash.xxh3_64_intdigest(prompt.tobytes(), seed=(seed * 1_000_003 + number) % 2**64)


def _json_answer(value: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )


async def _version(_: web.Request) -> web.Response:
    return _json_answer({"version": VLLM_VERSION})


async def _empty(_: web.Request) -> web.Response:
    return web.Response()


def _now_s() -> int:
    """Unix time."""
    return time.time_ns() // 1_000_000_000
