"""An engine that answers like vLLM as far as the router looks; tests.misbehaving_engine breaks.

`behaviour` picks what a POST does:

    answer      JSON, or SSE with `tokens` chunks `gap_s` apart
    reset       cut the connection before any byte
    error       answer 500 with an error object
    until_close answer without a length, ended by closing
"""

import asyncio
import json
from typing import Any

from aiohttp import web

METRICS = """\
# HELP vllm:num_requests_running r
vllm:num_requests_running{engine="0",model_name="tiny"} 1.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:prefix_cache_queries_total{engine="0",model_name="tiny"} 400.0
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 100.0
vllm:cache_config_info{block_size="16",enable_prefix_caching="True",engine="0",num_gpu_blocks="64"} 1.0
"""  # noqa: E501


class FakeEngine:
    """Start it, point a router at `url`, look at `bodies` and `aborted` afterwards."""

    def __init__(self, *, model: str = "tiny", root: str = "/models/tiny") -> None:
        self.model = model
        self.root = root
        self.behaviour = "answer"
        self.tokens = 3
        self.gap_s = 0.0
        self.cached_tokens: int | None = None
        self.reports_usage = True  # at the end of a stream; whole answers always do
        self.metrics_delay_s = 0.0
        self.models_delay_s = 0.0
        self.lists_models = True  # False: GET /v1/models is 404
        self.has_metrics = True
        self.sleeping: bool | None = None  # None: no sleep mode
        self.adapters: list[str] = []
        self.answer_headers: dict[str, str] = {}  # of whole answers
        self.process_start_s = 1.0
        self.requests: list[tuple[str, dict[str, str], bytes]] = []  # target, headers, body
        self.aborted = 0
        self.peers: set[object] = set()  # client addresses that sent requests
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> "FakeEngine":
        app = web.Application(client_max_size=2**30)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/version", self._version)
        app.router.add_get("/is_sleeping", self._is_sleeping)
        app.router.add_post("/sleep", self._sleep)
        app.router.add_post("/wake_up", self._sleep)
        app.router.add_get("/v1/audio/voices", self._post)
        app.router.add_post("/{path:.*}", self._post)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _models(self, _: web.Request) -> web.Response:
        await asyncio.sleep(self.models_delay_s)
        if not self.lists_models:
            raise web.HTTPNotFound
        card = {"id": self.model, "object": "model", "root": self.root, "max_model_len": 4096}
        adapters = [{"id": name, "parent": self.model} for name in self.adapters]
        return web.json_response({"object": "list", "data": [card, *adapters]})

    async def _is_sleeping(self, _: web.Request) -> web.Response:
        if self.sleeping is None:
            raise web.HTTPNotFound
        return web.json_response({"is_sleeping": self.sleeping})

    async def _sleep(self, request: web.Request) -> web.Response:
        if self.sleeping is None:
            raise web.HTTPNotFound
        self.requests.append((request.raw_path, dict(request.headers), await request.read()))
        if request.query.get("level") == "9":
            return web.json_response({"error": {"message": "no such level"}}, status=400)
        self.sleeping = request.path == "/sleep"
        return web.Response()

    async def _metrics(self, _: web.Request) -> web.Response:
        await asyncio.sleep(self.metrics_delay_s)
        if not self.has_metrics:
            raise web.HTTPNotFound
        return web.Response(text=f"{METRICS}process_start_time_seconds {self.process_start_s}\n")

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.0"})

    async def _post(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.raw_path, dict(request.headers), body))
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        if self.behaviour == "reset":
            request.transport.abort()
            return web.Response()
        if self.behaviour == "error":
            return web.json_response({"error": {"message": "no"}}, status=500)
        try:
            parsed = json.loads(body or b"{}") if request.content_type.endswith("json") else {}
            if self.behaviour == "until_close":
                return await self._until_close(request)
            return await (self._stream if parsed.get("stream") else self._whole)(request)
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted += 1
            raise

    def _usage(self) -> dict[str, Any]:
        usage: dict[str, Any] = {"prompt_tokens": 7, "completion_tokens": self.tokens}
        if self.cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        return usage

    async def _whole(self, _: web.Request) -> web.Response:
        await asyncio.sleep(self.gap_s * self.tokens)
        choices = [{"index": 0, "text": "x" * self.tokens}]
        return web.json_response(
            {"id": "1", "model": self.model, "choices": choices, "usage": self._usage()},
            headers=self.answer_headers,
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        for number in range(self.tokens):
            event = {"choices": [{"index": 0, "delta": {"content": f"t{number}"}}]}
            await answer.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            await asyncio.sleep(self.gap_s)
        last = {"choices": [], "usage": self._usage()}
        usage = b"data: " + json.dumps(last).encode() + b"\n\n" if self.reports_usage else b""
        await answer.write(usage + b"data: [DONE]\n\n")
        await answer.write_eof()
        return answer

    async def _until_close(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
            b'{"choices": [{"text": "to the end"}]}'
        )
        request.transport.close()
        await asyncio.sleep(1)
        return web.Response()
