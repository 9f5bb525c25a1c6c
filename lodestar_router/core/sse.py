"""What routing reads out of an answer's bytes: the first token, the usage.

Sans I/O: bytes in, facts out. Nothing here changes the stream.

The first token is the first server-sent event that carries a choice (OpenAI
chat and completions), a content delta (Anthropic messages) or an output delta
(OpenAI responses). vLLM sends none of these before the first token exists: its
role-only chunk leaves together with the first token (serving.py of
vllm/entrypoints/openai/chat_completion at v0.32.0). `vllm bench serve` counts TTFT alike.
"""

import re
from dataclasses import dataclass

# vLLM sends an event per token and ends each like this; text cannot forge it, JSON escapes it.
EVENT_END = b"\n\n"

# Events before the first token are keep-alives and headers of a stream: short.
_MAX_SCAN_BYTES = 65_536

_FIRST_TOKEN = re.compile(
    rb'"choices"\s*:\s*\[\s*\{'
    rb'|"type"\s*:\s*"(?:content_block_delta|response\.[a-z_.]+\.delta)"'
)
# Inside a JSON string the quotes would be escaped, so text cannot forge these.
_PROMPT_TOKENS = re.compile(rb'"prompt_tokens"\s*:\s*(\d+)')
_CACHED_TOKENS = re.compile(rb'"cached_tokens"\s*:\s*(\d+)')
# vLLM ends a stream that failed with such an event (create_streaming_error_response).
_FAILED = re.compile(rb'data:\s*\{"error"\s*:\s*\{[^\n]*"code"\s*:\s*"?(\d+)')
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')


class FirstTokenScanner:
    """Watches a stream's body until its first token.

    After `_MAX_SCAN_BYTES` without one the stream is of an unknown kind and the
    bytes at hand count as the first token.
    """

    __slots__ = ("_scanned_bytes", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._scanned_bytes = 0

    def feed(self, body: bytes) -> bool:
        """True when the first token is in what has been fed so far."""
        window = self._tail + body
        self._scanned_bytes += len(body)
        if _FIRST_TOKEN.search(window) or self._scanned_bytes > _MAX_SCAN_BYTES:
            return True
        self._tail = window[-128:]  # longer than any text the pattern can span
        return False


def failure_in(tail: bytes) -> int | None:
    """The status of the error event that a stream ended with; None if it ended well."""
    start = tail.rfind(b'{"error"')
    failed = _FAILED.search(tail, max(start - 8, 0)) if start >= 0 else None
    return int(failed[1]) if failed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The engine's own count; None where it was not reported."""

    prompt_tokens: int
    completion_tokens: int | None
    cached_tokens: int | None


def usage_in(tail: bytes) -> Usage | None:
    """The last usage object in the end of an answer, streamed or not; None without one."""
    start = tail.rfind(b'"usage"')
    if start < 0:
        return None
    prompt = _PROMPT_TOKENS.search(tail, start)
    if prompt is None:
        return None
    completion = _COMPLETION_TOKENS.search(tail, start)
    cached = _CACHED_TOKENS.search(tail, start)
    return Usage(
        prompt_tokens=int(prompt[1]),
        completion_tokens=int(completion[1]) if completion else None,
        cached_tokens=int(cached[1]) if cached else None,
    )
