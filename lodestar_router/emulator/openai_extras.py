"""Endpoints that the emulated engine answers at once, without scheduling: no GPU is modelled.

    /v1/embeddings               a unit vector drawn by a hash of the token ids
    /v1/audio/transcriptions     what it was sent: equal forms have equal answers
    /v1/audio/translations
    /sleep, /wake_up             while it sleeps nothing is generated (503)
    /is_sleeping

In       HTTP requests.
Out      answers in vLLM's form; a transcription also has `received`, the form's fields.
Errors   ApiError.
Source   vllm/entrypoints/{openai/speech_to_text,pooling/embed,serve/sleep} at v0.32.0.
"""

import base64
import secrets
from collections.abc import Awaitable, Callable, Mapping
from math import sqrt
from random import Random
from typing import Any

import msgspec
import numpy as np
import xxhash
from aiohttp import web

from lodestar_router.emulator.openai_calls import json_body, now_s
from lodestar_router.emulator.openai_requests import ApiError, check_model
from lodestar_router.emulator.server_language import Language

_DIMENSIONS = 64
_AUDIO_BYTES_PER_S = 32_000  # 16-bit PCM at 16 kHz

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Extras:
    """These endpoints of one engine.

    Args:
        forget: drops the KV cache, which sleeping does.
    """

    def __init__(self, language: Language, *, model: str, forget: Callable[[], object]) -> None:
        self._language = language
        self._model = model
        self._forget = forget
        self.sleeping = False

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Method and path -> handler."""
        return {
            ("POST", "/v1/embeddings"): self._embeddings,
            ("POST", "/v1/audio/transcriptions"): self._speech,
            ("POST", "/v1/audio/translations"): self._speech,
            ("POST", "/sleep"): self._sleep,
            ("POST", "/wake_up"): self._wake_up,
            ("GET", "/is_sleeping"): self._is_sleeping,
        }

    def check_awake(self) -> None:
        """Refuse to generate while asleep."""
        if self.sleeping:
            raise ApiError("The engine is sleeping.", kind="ServiceUnavailable", status=503)

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        check_model(body, self._model)
        self.check_awake()
        prompts = self._language.encode("/v1/completions", {"prompt": body.get("input")})
        as_text = body.get("encoding_format") == "base64"
        data = [
            {"index": index, "object": "embedding", "embedding": _embedding(ids, as_text=as_text)}
            for index, ids in enumerate(prompts)
        ]
        tokens = sum(map(len, prompts))
        return _answer(
            {
                "id": f"embd-{secrets.token_hex(8)}",
                "object": "list",
                "created": now_s(),
                "model": self._model,
                "data": data,
                "usage": {
                    "prompt_tokens": tokens,
                    "total_tokens": tokens,
                    "completion_tokens": 0,
                    "prompt_tokens_details": None,
                },
            }
        )

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file = form.get("file")
        if not isinstance(file, web.FileField):
            raise ApiError("Field required: file", kind="Bad Request", param="file")
        fields = {name: form.getall(name) for name in form if name != "file"}
        check_model({"model": form.get("model")}, self._model)
        self.check_awake()
        audio = file.file.read()
        text = f"{len(audio)} bytes, {xxhash.xxh3_64_hexdigest(audio)}"
        if str(form.get("stream")).lower() == "true":
            return await self._stream(request, text)
        kind = form.get("response_format", "json")
        if kind in ("text", "srt", "vtt"):
            return web.Response(text=text)
        seconds = max(len(audio) // _AUDIO_BYTES_PER_S, 1)
        answer: dict[str, Any] = {
            "text": text, "usage": {"type": "duration", "seconds": seconds},
            "received": {**fields, "filename": file.filename},
        }  # fmt: skip
        if kind == "verbose_json":
            answer |= {"language": form.get("language", "en"), "duration": str(seconds)}
        return _answer(answer)

    async def _stream(self, request: web.Request, text: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        common = {"id": f"trsc-{secrets.token_hex(8)}", "object": "transcription.chunk"}
        for word in text.split():
            choice = {"index": 0, "delta": {"content": word + " "}}
            chunk = {**common, "model": self._model, "choices": [choice]}
            await response.write(b"data: %s\n\n" % msgspec.json.encode(chunk))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _sleep(self, request: web.Request) -> web.Response:
        if request.query.get("level", "1") not in ("0", "1", "2"):
            raise ApiError("level must be 0, 1 or 2", param="level")
        self.sleeping = True
        self._forget()
        return web.Response()

    async def _wake_up(self, _: web.Request) -> web.Response:
        self.sleeping = False
        return web.Response()

    async def _is_sleeping(self, _: web.Request) -> web.Response:
        return _answer({"is_sleeping": self.sleeping})


def _embedding(ids: Any, *, as_text: bool) -> list[float] | str:
    rng = Random(xxhash.xxh3_64_intdigest(ids.tobytes()))
    drawn = [rng.gauss(0.0, 1.0) for _ in range(_DIMENSIONS)]
    norm = sqrt(sum(value * value for value in drawn))
    vector = [value / norm for value in drawn]
    if not as_text:
        return vector
    return base64.b64encode(np.array(vector, dtype="<f4").tobytes()).decode()


def _answer(value: Mapping[str, Any]) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
