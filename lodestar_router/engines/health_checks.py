"""Real requests to engines now and then, whose failure takes a model off an engine.

For engines that answer /health and /v1/models while their inference is broken. A request
per model, engine and interval; each in its own task, so one that hangs delays no other.

In       checks: which engine, which model, with what kind of request.
Out      models marked as unhealthy, or not any more, in the engines' watches.
Cost     three tokens per check.
Errors   none: whatever keeps an answer from coming is the reason shown.
Source   production-stack's --static-backend-health-checks, vllm_router/utils.py at a6c01db.
"""

import asyncio
import io
import logging
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from lodestar_router.core.types import EngineId
from lodestar_router.engines.api import EngineApi
from lodestar_router.engines.watch import EngineWatch
from lodestar_router.errors import EngineError
from lodestar_router.tasks import cancel, spawn

_logger = logging.getLogger(__name__)

_NO_WATCH_YET_S = 1.0  # an engine that was named a moment ago
_TOKENS = 3
_TRANSCRIPTION = "transcription"
# One grey pixel.
_IMAGE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One model on one engine."""

    engine_id: EngineId
    model: str
    kind: str  # chat, completion, embeddings, rerank, score, transcription, vision, messages
    interval_s: float
    timeout_s: float


class HealthChecks:
    """Runs the checks that are asked for.

    Args:
        watch_of: the watch of an engine, None while there is none.
    """

    def __init__(self, watch_of: Callable[[EngineId], EngineWatch | None]) -> None:
        self._watch_of = watch_of
        self._running: dict[Check, asyncio.Task[None]] = {}

    async def use(self, checks: Sequence[Check]) -> None:
        """Run exactly these from now on; equal ones run on."""
        gone = [check for check in self._running if check not in checks]
        await cancel(*(self._running.pop(check) for check in gone))
        for check in gone:
            if (watch := self._watch_of(check.engine_id)) is not None:
                watch.judge(check.model, "")
        for check in checks:
            if check not in self._running:
                name = f"health check {check.engine_id} {check.model}"
                self._running[check] = spawn(self._run(check), name=name)

    async def _run(self, check: Check) -> None:
        healthy = True
        while True:
            watch = self._watch_of(check.engine_id)
            if watch is None:
                await asyncio.sleep(_NO_WATCH_YET_S)
                continue
            trouble = await _trouble(watch.api, check)
            if healthy != (not trouble):
                healthy = not trouble
                _logger.warning(
                    "engine %s, model %s: %s",
                    check.engine_id,
                    check.model,
                    trouble or "healthy again",
                )
            watch.judge(check.model, trouble)
            await asyncio.sleep(check.interval_s)

    async def stop(self) -> None:
        """End all checks."""
        await cancel(*self._running.values())


async def _trouble(api: EngineApi, check: Check) -> str:
    """Why the model does not answer; "" if it does."""
    path, payload = request_of(check.kind, check.model)
    try:
        await api.try_out(path, payload, check.timeout_s)
    except EngineError as error:
        return f"health check failed: {error}"
    return ""


def request_of(kind: str, model: str) -> tuple[str, dict[str, Any] | aiohttp.FormData]:
    """(path, body) of a request that costs as little as can be."""
    if kind == _TRANSCRIPTION:
        form = aiohttp.FormData({"model": model})
        form.add_field("file", _silence(), filename="silence.wav", content_type="audio/wav")
        return "/v1/audio/transcriptions", form
    path, payload = _REQUESTS[kind]
    return path, {"model": model, **payload}


def _chat(content: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"messages": messages, "temperature": 0.0, "max_tokens": _TOKENS}


def _silence() -> bytes:
    """A tenth of a second."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * 1_600))
    return buffer.getvalue()


_REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", _chat("Hello")),
    "messages": ("/v1/messages", _chat("Hello")),
    "vision": (
        "/v1/chat/completions",
        _chat([{"type": "text", "text": "Say yes"},
               {"type": "image_url", "image_url": {"url": _IMAGE}}]),
    ),
    "completion": ("/v1/completions", {"prompt": "Hello", "max_tokens": _TOKENS}),
    "embeddings": ("/v1/embeddings", {"input": "Hello"}),
    "rerank": ("/v1/rerank", {"query": "Hello", "documents": ["Test"]}),
    "score": ("/v1/score", {"text_1": "Test", "text_2": "Test2", "encoding_format": "float"}),
}  # fmt: skip
