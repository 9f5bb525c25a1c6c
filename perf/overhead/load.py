"""A closed loop of HTTP/1.1 clients on one core: as many requests in flight as connections.

    python -m perf.overhead.load PORT BODIES.json CONNECTIONS SECONDS < bodies

In       a port; bodies as JSON strings in a file, sent in turn.
Out      one JSON line: requests, errors, seconds, bytes of answers, latencies in ms.
Cost     about 15 us per request.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import cast

import httptools
import uvloop

PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What the clients saw."""

    requests: int  # answered with 200
    errors: int  # answered otherwise, or cut
    seconds: float
    received_bytes: int
    p50_ms: float
    p99_ms: float


class _Load:
    """All connections of one run."""

    def __init__(self, requests: Iterator[bytes], seconds: float, connections: int) -> None:
        self.requests = requests
        self.deadline_s = perf_counter() + seconds
        self.latencies_s: list[float] = []
        self.errors = 0
        self.received_bytes = 0
        self.open = connections
        self.done = asyncio.Event()

    def closed(self) -> None:
        """A connection has ended."""
        self.open -= 1
        if not self.open:
            self.done.set()


class _Client(asyncio.Protocol):
    """One connection: a request whenever the answer to the last is whole."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def _next(self) -> None:
        self._waiting = perf_counter() < self._load.deadline_s
        if not self._waiting:
            self._transport.close()
            return
        self._parser = httptools.HttpResponseParser(self)
        self._sent_s = perf_counter()
        self._transport.write(next(self._load.requests))

    def data_received(self, data: bytes) -> None:
        self._load.received_bytes += len(data)
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        load = self._load
        if self._parser.get_status_code() == 200:
            load.latencies_s.append(perf_counter() - self._sent_s)
        else:
            load.errors += 1
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.errors += self._waiting
        self._load.closed()


def http_request(body: bytes, port: int) -> bytes:
    """A request as an OpenAI client library would send it."""
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: application/json\r\n"
        "content-type: application/json\r\nuser-agent: perf.overhead\r\n"
        f"authorization: Bearer none\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def run(port: int, bodies: Sequence[bytes], connections: int, seconds: float) -> LoadReport:
    """Send for `seconds`; requests under way at the end are waited for."""
    requests = cycle([http_request(body, port) for body in bodies])
    loop = asyncio.get_running_loop()
    load = _Load(requests, seconds, connections)
    started_s = perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: _Client(load), "127.0.0.1", port)
    await load.done.wait()
    latencies_s = sorted(load.latencies_s) or [0.0]
    return LoadReport(
        requests=len(load.latencies_s),
        errors=load.errors,
        seconds=perf_counter() - started_s,
        received_bytes=load.received_bytes,
        p50_ms=1e3 * latencies_s[len(latencies_s) // 2],
        p99_ms=1e3 * latencies_s[len(latencies_s) * 99 // 100],
    )


def main(argv: Sequence[str]) -> None:
    """Run and print the report."""
    port, file, connections, seconds = argv
    bodies = [body.encode() for body in json.loads(Path(file).read_text())]
    report = uvloop.run(run(int(port), bodies, int(connections), float(seconds)))
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main(sys.argv[1:])
