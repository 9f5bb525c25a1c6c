"""vLLM's HTTP endpoints in front of an emulated engine.

In       HTTP requests.
Out      what vLLM 0.32 answers them; see openai_requests for what is left out.
Cost     see openai_calls; a /metrics page about 0.3 ms.
Errors   error objects as vLLM words them.
Source   vllm/entrypoints/openai, vllm/entrypoints/serve at v0.32.0.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from lodestar_router.emulator.kv_transfer import FETCH, DecodeSide, PrefillSide
from lodestar_router.emulator.openai_calls import CHAT, COMPLETIONS, Completions, json_body, now_s
from lodestar_router.emulator.openai_extras import Extras
from lodestar_router.emulator.openai_requests import ApiError, check_model
from lodestar_router.emulator.server_engine import RealTimeEngine
from lodestar_router.emulator.server_language import Language, TextError
from lodestar_router.emulator.server_metrics import EngineMetrics
from lodestar_router.errors import RequestError

VLLM_VERSION = "0.32.0"  # whose answers are given

_MOST_BODY_BYTES = 1 << 30

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
        kv_side: PrefillSide | DecodeSide | None = None,
    ) -> None:
        self._engine = engine
        self._language = language
        self._model = model
        self._metrics = metrics
        self._kv_sources = kv_sources
        self._max_model_len = engine.model.config.max_model_len
        self._started_s = now_s()
        self._kv_side = kv_side
        self._completions = Completions(engine, language, model=model, kv_side=kv_side)
        self._extras = Extras(language, model=model, forget=engine.clear_prefix_cache)

    def application(self) -> web.Application:
        """The application to serve."""
        app = web.Application(client_max_size=_MOST_BODY_BYTES, middlewares=[_errors])
        routes: dict[tuple[str, str], _Handler] = {
            **self._extras.routes(),
            ("POST", CHAT): self._answer,
            ("POST", COMPLETIONS): self._answer,
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
        if isinstance(self._kv_side, PrefillSide):
            routes["POST", FETCH] = self._kv_side.give
        for (method, path), handler in routes.items():
            app.router.add_route(method, path, handler)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self._extras.check_awake()
        return await self._completions.answer(request)

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await json_body(request)
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
        body = await json_body(request)
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
        return _json_answer({"server_load": self._completions.calls})

    async def _reset_prefix_cache(self, _: web.Request) -> web.Response:
        return _json_answer({"success": self._engine.clear_prefix_cache()})


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


def _json_answer(value: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )


async def _version(_: web.Request) -> web.Response:
    return _json_answer({"version": VLLM_VERSION})


async def _empty(_: web.Request) -> web.Response:
    return web.Response()
