"""An OpenAI client that times one request and keeps what routing said of it.

In       an aiohttp session, a URL, a path and a body.
Out      RequestRecord.
Errors   none: whatever goes wrong is the record's `error`.
Source   `x-lodestar-*` headers of the router; `usage.prompt_tokens_details` of
         vLLM with --enable-prompt-tokens-details.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from perf.serving.records import RequestRecord

REQUEST_TIMEOUT_S = 120.0


@dataclass(slots=True)
class _Answer:
    """What has come so far."""

    started_s: float
    ttft_s: float | None = None
    received: bool = False
    error: str | None = None
    done: bool = False
    usage: dict[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)


async def send(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> RequestRecord:
    """POST `body`; streams if it says so, then asks for usage too."""
    streaming = bool(body.get("stream"))
    payload = {**body, "stream_options": {"include_usage": True}} if streaming else body
    answer = _Answer(started_s=time.monotonic())
    try:
        async with session.post(
            url, json=payload, timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        ) as response:
            answer.headers = response.headers
            if response.status != 200:
                answer.error = f"HTTP {response.status}: {(await response.text())[:300]}"
            elif streaming:
                await _read_stream(response, answer)
            else:
                _take(json.loads(await response.read()), answer, answer_is_whole=True)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        answer.error = f"{type(error).__name__}: {error}"
    return _record(answer)


async def _read_stream(response: aiohttp.ClientResponse, answer: _Answer) -> None:
    async for line in response.content:
        answer.received = True
        data = line.removeprefix(b"data:").strip()
        if not line.startswith(b"data:"):
            continue
        if data == b"[DONE]":
            answer.done = True
        else:
            _take(json.loads(data), answer, answer_is_whole=False)
    if not answer.done and answer.error is None:
        answer.error = "the stream ended early"


def _take(chunk: dict[str, Any], answer: _Answer, *, answer_is_whole: bool) -> None:
    if "error" in chunk:
        answer.error = json.dumps(chunk["error"])[:300]
        return
    for choice in chunk.get("choices", ()):
        if answer.ttft_s is None and not answer_is_whole:
            answer.ttft_s = time.monotonic() - answer.started_s
        said = choice.get("delta") or choice.get("message") or choice
        answer.pieces.append(said.get("content") or said.get("text") or "")
    answer.usage = chunk.get("usage") or answer.usage


def _record(answer: _Answer) -> RequestRecord:
    expected = answer.headers.get("x-lodestar-cached-tokens")
    details = answer.usage.get("prompt_tokens_details") or {}
    return RequestRecord(
        started_s=answer.started_s,
        e2e_s=time.monotonic() - answer.started_s,
        ttft_s=answer.ttft_s,
        error=answer.error,
        past_first_byte=answer.received,
        prompt_tokens=answer.usage.get("prompt_tokens", 0),
        cached_tokens=details.get("cached_tokens") or 0,
        expected_cached_tokens=None if expected is None else int(expected),
        engine=answer.headers.get("x-lodestar-engine"),
        text="".join(answer.pieces),
    )
