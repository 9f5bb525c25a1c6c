"""The load counts what it is answered, and the stub engine answers what it is asked."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from perf.overhead import load
from perf.overhead.stub_engine import StubEngine


@asynccontextmanager
async def listening(make: Any) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Answers(asyncio.Protocol):
    """A server that answers everything with the same bytes, and then perhaps leaves."""

    def __init__(self, answer: bytes, leaves: bool) -> None:
        self._answer, self._leaves = answer, leaves

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer)
        if self._leaves:
            self._transport.close()


def chat(**more: Any) -> bytes:
    return json.dumps({"model": "tiny", "messages": [], **more}).encode()


async def test_requests_that_are_answered_are_counted_and_timed() -> None:
    async with listening(StubEngine) as port:
        report = await load.run(port, [chat()], 3, 0.2)

    assert report.requests > 10
    assert report.errors == 0
    assert 0 < report.p50_ms <= report.p99_ms
    assert report.seconds >= 0.2


async def test_another_status_and_a_cut_are_errors() -> None:
    refusal = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"
    async with listening(lambda: Answers(refusal, leaves=False)) as port:
        refused = await load.run(port, [chat()], 1, 0.1)
    async with listening(lambda: Answers(b"HTTP/1.1 200 OK\r\n", leaves=True)) as port:
        cut = await load.run(port, [chat()], 2, 0.1)

    assert (refused.requests, refused.errors > 0) == (0, True)
    assert (cut.requests, cut.errors) == (0, 2)


async def raw(port: int, request: bytes, end: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.readuntil(end)
    writer.close()
    return answer


async def test_a_stream_has_as_many_events_as_were_asked_for() -> None:
    async with listening(StubEngine) as port:
        request = load.http_request(chat(stream=True, max_tokens=7), port)
        answer = await raw(port, request, b"0\r\n\r\n")

    assert answer.count(b"chat.completion.chunk") == 7
    assert answer.count(b"data: [DONE]") == 1


async def test_events_are_as_far_apart_as_was_asked_for() -> None:
    async with listening(StubEngine) as port:
        request = load.http_request(chat(stream=True, max_tokens=5, user="20ms"), port)
        began_s = asyncio.get_running_loop().time()
        await raw(port, request, b"0\r\n\r\n")

    assert asyncio.get_running_loop().time() - began_s > 0.09


async def test_the_stub_says_what_it_serves_and_knows_no_other_pages() -> None:
    async with listening(StubEngine) as port:
        models = await raw(port, b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", b"]}")
        other = await raw(port, b"GET /other HTTP/1.1\r\nhost: x\r\n\r\n", b"\r\n\r\n")

    assert b'"id": "tiny"' in models
    assert other.startswith(b"HTTP/1.1 404 ")
