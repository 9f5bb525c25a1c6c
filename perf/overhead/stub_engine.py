"""An engine that answers at once and computes nothing, so that the router is what is measured.

    python -m perf.overhead.stub_engine PORT

In       OpenAI requests. `stream` asks for `max_tokens` events, each a write of its
         own; `user: "20ms"` spaces them out.
Out      the same JSON answer, or the same events, every time; a model list and
         empty /metrics for routers that ask.
Cost     about 15 us per request, 3 us per event.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import cast

import httptools
import msgspec
import uvloop

MODEL = "tiny"
CHUNKS = 64

_METRICS = b"""\
vllm:num_requests_running{model_name="tiny"} 0.0
vllm:num_requests_waiting{model_name="tiny"} 0.0
vllm:kv_cache_usage_perc{model_name="tiny"} 0.0
vllm:cache_config_info{block_size="16",enable_prefix_caching="True",num_gpu_blocks="65536"} 1.0
"""


class Wish(msgspec.Struct):
    """What the stub reads of a request."""

    stream: bool = False
    max_tokens: int = CHUNKS
    user: str = ""


_wish = msgspec.json.Decoder(Wish)


def _whole(content_type: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
    return head % (content_type, len(body)) + body


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def token_event(text: str) -> bytes:
    """A token of a chat's stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    event = {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL,
        "choices": [choice],
    }  # fmt: skip
    return _chunk(b"data: " + json.dumps(event).encode() + b"\n\n")


_MODELS = _whole(
    b"application/json",
    json.dumps(
        {
            "object": "list",
            "data": [{"id": MODEL, "object": "model", "owned_by": "vllm", "root": MODEL}],
        }
    ).encode(),
)
_ANSWER = _whole(
    b"application/json",
    json.dumps(
        {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL,
            "choices": [{
                "index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "x" * 200},
            }],
            "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
        }
    ).encode(),
)  # fmt: skip
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_EVENT = token_event(" token")
DONE = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
_FIXED = {
    b"/v1/models": _MODELS,
    b"/metrics": _whole(b"text/plain", _METRICS),
    b"/health": _whole(b"text/plain", b""),
}


class StubEngine(asyncio.Protocol):
    """One connection of a router."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._path = self._body = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path, self._path = self._path.partition(b"?")[0], b""
        body, self._body = self._body, b""
        if self._parser.get_method() != b"POST":
            self.transport.write(_FIXED.get(path, _NOT_FOUND))
        elif path not in (b"/v1/chat/completions", b"/v1/completions"):
            self.transport.write(_NOT_FOUND)
        else:
            self.answer(_wish.decode(body))

    def answer(self, wish: Wish) -> None:
        """A whole request is here."""
        if not wish.stream:
            self.transport.write(_ANSWER)
            return
        self.transport.write(STREAM_HEAD)
        gap_s = float(wish.user.removesuffix("ms")) / 1e3 if wish.user.endswith("ms") else 0.0
        self._emit(iter([*[_EVENT] * wish.max_tokens, DONE]), gap_s)

    def _emit(self, events: Iterator[bytes], gap_s: float) -> None:
        """Write one event, come back for the next."""
        event = next(events, None)
        if event is None or self.transport.is_closing():
            return
        self.transport.write(event)
        if gap_s:
            self._loop.call_later(gap_s, self._emit, events, gap_s)
        else:
            self._loop.call_soon(self._emit, events, gap_s)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(StubEngine, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
