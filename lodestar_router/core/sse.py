"""What routing reads out of an answer's bytes: the first token, the usage.

Sans I/O: bytes in, facts out. Nothing here changes the stream.

The first token is the first server-sent event that carries a choice (OpenAI
chat and completions), a content delta (Anthropic messages) or an output delta
(OpenAI responses). vLLM sends none of these before the first token exists: its
role-only chunk leaves together with the first token (serving.py of
vllm/entrypoints/openai/chat_completion at v0.32.0). `vllm bench serve` counts TTFT alike.
"""

import re
from collections.abc import Sequence

from msgspec import Struct

# vLLM sends an event per token and ends each like this; text cannot forge it, JSON escapes it.
EVENT_END = b"\n\n"

# Events before the first token are keep-alives and headers of a stream: short.
_MAX_SCAN_BYTES = 65_536

_FIRST_TOKEN = re.compile(
    rb'"choices"\s*:\s*\[\s*\{'
    rb'|"type"\s*:\s*"(?:content_block_delta|response\.[a-z_.]+\.delta)"'
)
# Text cannot forge a name in quotes: JSON escapes them.
_COUNTS = re.compile(rb'"(prompt_tokens|completion_tokens|cached_tokens)"\s*:\s*(\d+)')
# vLLM ends a stream that failed with such an event (create_streaming_error_response).
_ERROR_BYTES = 2048  # the last of a stream, where it would be
_FAILED = re.compile(rb'data:\s*\{"error"\s*:\s*\{[^\n]*"code"\s*:\s*"?(\d+)')


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


class EventCounter:
    """How many events there were, where most parts of a body are one event each.

    Looked at byte by byte a stream's events cost more than all else that is done with
    them. So parts are counted, unless they are as long as two of the events seen before.
    """

    __slots__ = ("_long_bytes", "count")

    def __init__(self) -> None:
        self.count = 0
        self._long_bytes = 0  # what may be more than one

    def look(self, body: bytes) -> None:
        """Count exactly."""
        count = body.count(EVENT_END)
        if count:
            self.count += count
            self._long_bytes = 2 * len(body) // count

    def add(self, parts: Sequence[bytes], size_bytes: int) -> None:
        """Count the parts of a body that came together, `size_bytes` with their framing."""
        if size_bytes > self._long_bytes * len(parts):
            self.look(b"".join(parts))
        elif parts:  # one that is cut off is counted with its end
            self.count += len(parts) - (not parts[-1].endswith(EVENT_END))


def failure_in(tail: bytes) -> int | None:
    """The status of the error event that a stream ended with; None if it ended well."""
    end = max(len(tail) - _ERROR_BYTES, 0)
    start = tail.find(b'data: {"error"', end)
    failed = _FAILED.search(tail, start) if start >= 0 else None
    return int(failed[1]) if failed else None


class Usage(Struct, frozen=True, kw_only=True):
    """The engine's own count; None where it was not reported."""

    prompt_tokens: int
    completion_tokens: int | None
    cached_tokens: int | None


def usage_in(tail: bytes) -> Usage | None:
    """The last usage object in the end of an answer, streamed or not; None without one."""
    start = tail.rfind(b'"usage"')
    if start < 0:
        return None
    counts = dict(reversed(_COUNTS.findall(tail, start)))  # of each name the first
    if b"prompt_tokens" not in counts:
        return None
    return Usage(
        prompt_tokens=int(counts[b"prompt_tokens"]),
        completion_tokens=_number(counts.get(b"completion_tokens")),
        cached_tokens=_number(counts.get(b"cached_tokens")),
    )


def _number(digits: bytes | None) -> int | None:
    return None if digits is None else int(digits)
