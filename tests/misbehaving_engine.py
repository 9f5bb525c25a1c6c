"""Engines that break, byte by byte: what a POST gets is a coroutine of the test's own.

    engine = await MisbehavingEngine(breaks_mid_stream).start()

Everything else about them is well: models, metrics and health are answered,
unless `silent` is set. The coroutines below are the faults that several tests need.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tests.fake_engine import METRICS

Behave = Callable[["Exchange"], Coroutine[Any, Any, None]]


@dataclass
class Exchange:
    """One POST, and the ways to answer it."""

    writer: asyncio.StreamWriter
    body: bytes
    number: int  # of the engine's POSTs, from 0
    on_connection: int  # of this connection's POSTs, from 0

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            if self.writer.is_closing():
                raise ConnectionResetError
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self, status: int = 200, *headers: str, body: bytes | None = None) -> None:
        """A whole answer, JSON or SSE as asked."""
        if status == 200 and json.loads(self.body).get("stream") and body is None:
            await self.send(self.stream_head(), event("a"), event("b"), DONE)
            return
        raw = body or b'{"choices":[{"index":0,"text":"whole"}]}'
        await self.send(head(status, *headers, f"content-length: {len(raw)}") + raw)

    def stream_head(self) -> bytes:
        return head(200, "content-type: text/event-stream", "transfer-encoding: chunked")

    def reset(self) -> None:
        """Cut the connection as a killed process with unread bytes does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        """End the connection properly."""
        self.writer.close()


def head(status: int, *headers: str) -> bytes:
    """The head of an answer."""
    lines = [f"HTTP/1.1 {status} X", "server: fake", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(text: str) -> bytes:
    """One token of a stream, framed."""
    payload = json.dumps({"choices": [{"index": 0, "text": text}]})
    return chunk(f"data: {payload}\n\n".encode())


DONE = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class MisbehavingEngine:
    """A server on its own port; `behave` may be changed at any time."""

    def __init__(self, behave: Behave, *, model: str = "tiny") -> None:
        self.behave = behave
        self.model = model
        self.silent = False  # accept everything, answer nothing
        self.unhealthy = False
        self.posts: list[bytes] = []
        self.connections = 0
        self.aborted = 0  # POSTs whose connection the router closed before their end
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> "MisbehavingEngine":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._exchanges(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchanges(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        posts = 0
        while not writer.is_closing():
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            if self.silent:
                await asyncio.sleep(3600)
            if first.startswith("GET"):
                writer.write(self._page(first.split(" ")[1]))
                continue
            self.posts.append(body)
            exchange = Exchange(writer, body, len(self.posts) - 1, posts)
            posts += 1
            await self._until_client_leaves(self.behave(exchange), reader)

    async def _until_client_leaves(
        self, behaving: Coroutine[Any, Any, None], reader: asyncio.StreamReader
    ) -> None:
        """Run the behaviour; a connection that ends meanwhile ends it, as in vLLM."""
        task = asyncio.get_running_loop().create_task(behaving)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=0.02)
                if reader.at_eof() and not task.done():
                    self.aborted += 1
                    return
            task.result()
        finally:
            task.cancel()

    def _page(self, path: str) -> bytes:
        if path == "/v1/models":
            card = {"id": self.model, "object": "model", "root": "/m", "max_model_len": 4096}
            body = json.dumps({"object": "list", "data": [card]}).encode()
        elif path == "/metrics":
            body = METRICS.encode()
        elif path == "/health":
            return head(503 if self.unhealthy else 200, "content-length: 0")
        else:
            return head(404, "content-length: 0")
        return head(200, f"content-length: {len(body)}") + body


async def well(exchange: Exchange) -> None:
    """Answer as asked."""
    await exchange.answer()


async def resets(exchange: Exchange) -> None:
    """Take the request, then cut the connection."""
    exchange.reset()


async def hangs(_: Exchange) -> None:
    """Take the request and never answer."""
    await asyncio.sleep(3600)


async def head_then_hangs(exchange: Exchange) -> None:
    """As vLLM whose engine core hangs: the stream's head comes at once, then nothing."""
    await exchange.send(exchange.stream_head())
    await asyncio.sleep(3600)


async def says_garbage(exchange: Exchange) -> None:
    """Answer in another protocol."""
    await exchange.send(b"SSH-2.0-OpenSSH_9.6\r\n")


async def breaks_mid_stream(exchange: Exchange) -> None:
    """Cut the connection between two events."""
    await exchange.send(exchange.stream_head(), event("a"))
    await asyncio.sleep(0.05)
    exchange.reset()


async def breaks_mid_event(exchange: Exchange) -> None:
    """Cut the connection within a chunk."""
    await exchange.send(exchange.stream_head(), event("a"), event("b" * 100)[:60])
    await asyncio.sleep(0.05)
    exchange.reset()


async def breaks_its_framing(exchange: Exchange) -> None:
    """Announce a chunk that is none."""
    await exchange.send(exchange.stream_head(), event("a"))
    await asyncio.sleep(0.05)
    await exchange.send(b"zz\r\nnot a chunk\r\n")


async def stalls_mid_stream(exchange: Exchange) -> None:
    """Send one token, then nothing."""
    await exchange.send(exchange.stream_head(), event("a"))
    await asyncio.sleep(3600)


async def sends_too_little(exchange: Exchange) -> None:
    """End an answer short of its announced length."""
    await exchange.send(head(200, "content-length: 100") + b'{"choices":[')
    await asyncio.sleep(0.05)
    exchange.close()


async def sends_too_much(exchange: Exchange) -> None:
    """Send two answers to one request."""
    whole = head(200, "content-length: 2") + b"{}"
    await exchange.send(whole + whole)


async def drips_its_head(exchange: Exchange) -> None:
    """A byte of the head at a time."""
    for byte in head(200, "x: " + "y" * 10_000):
        await exchange.send(bytes([byte]))
        await asyncio.sleep(0.05)


async def head_without_end(exchange: Exchange) -> None:
    """A head that goes on and on."""
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await exchange.send(b"x-filler: " + b"y" * 1000 + b"\r\n")


def answers(status: int, *headers: str, body: bytes | None = None) -> Behave:
    """Always this status."""

    async def behave(exchange: Exchange) -> None:
        await exchange.answer(status, *headers, body=body or b'{"error":{"message":"no"}}')

    return behave


async def fails_in_its_stream(exchange: Exchange) -> None:
    """As vLLM whose engine core died: status 200, and an error as the only event."""
    failure = b'data: {"error": {"message": "EngineCore died", "type": "X", "code": 500}}\n\n'
    await exchange.send(exchange.stream_head() + chunk(failure) + DONE)


async def closes_kept_alive(exchange: Exchange) -> None:
    """Answer once per connection; close it when it is used again."""
    if exchange.on_connection:
        exchange.close()
    else:
        await exchange.answer()


def in_turn(*behaviours: Behave) -> Behave:
    """The first POST gets the first, and so on; the last one stays."""

    async def behave(exchange: Exchange) -> None:
        await behaviours[min(exchange.number, len(behaviours) - 1)](exchange)

    return behave
