"""Clients that judge what they get.

In       requests, at the times the caller chooses; for some a time after which they leave.
Out      `Tally`: how each request ended, and the seconds to its answer's first byte.
Cost     about 20 us per request, 3 us per event.

answered   a whole answer of status 200, a stream with its [DONE]
refused    an answer that is an error object: a rule of the router, by status
told       a stream that broke after its first byte and said so
left       the client left
lost       anything else: cut without a word, ended short, never ended
"""

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from time import perf_counter
from typing import cast

import httptools

from lodestar_router.tasks import spawn

STUCK_S = 60.0  # the longest stream takes seconds
_STEPS = 12
_BY_RULE = frozenset({429, 502, 503, 504})


@dataclass(slots=True)
class Tally:
    """What became of all requests."""

    sent: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    first_byte_s: "array[float]" = field(default_factory=lambda: array("d"))

    @property
    def lost(self) -> int:
        """Requests whose end nobody may accept."""
        return self.endings["lost"]

    @property
    def open(self) -> int:
        """Requests that have not ended."""
        return self.sent - self.endings.total()

    def quantile_ms(self, share: float) -> float:
        """Of the times to the first byte."""
        ordered = sorted(self.first_byte_s) or [0.0]
        return 1e3 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class Client(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self, tally: Tally, on_free: Callable[["Client"], None]) -> None:
        self._tally = tally
        self._on_free = on_free
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, *, leaves_after_s: float | None = None) -> None:
        """Ask; without `leaves_after_s` for as long as it takes."""
        loop = asyncio.get_running_loop()
        self._busy = True
        self._parser = httptools.HttpResponseParser(self)
        self._streamed = self._done = self._error = False
        self._sent_s: float | None = perf_counter()
        self._tally.sent += 1
        if leaves_after_s is None:
            self._wait(_STEPS)
        else:
            self._timer = loop.call_later(leaves_after_s, self._end, "left")
        self.transport.write(request)

    def _wait(self, steps: int) -> None:
        """Give up after so many: one long step alone says that this process stood still."""
        if not steps:
            self._end("lost")
            return
        self._timer = asyncio.get_running_loop().call_later(STUCK_S / _STEPS, self._wait, steps - 1)

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            self.transport.abort()  # nobody asked
            return
        if self._sent_s is not None:
            self._tally.first_byte_s.append(perf_counter() - self._sent_s)
            self._sent_s = None
        self._error |= b"event: error\n" in data
        self._done |= b"data: [DONE]" in data
        with suppress(httptools.HttpParserError):  # the cut of an error event is no chunk
            self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._streamed = value.startswith(b"text/event-stream")

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status in _BY_RULE:
            self._end(f"refused {status}", keep=self._parser.should_keep_alive())
        elif status == 200 and self._done == self._streamed and not self._error:
            self._end("answered", keep=self._parser.should_keep_alive())
        else:
            self._end("lost")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._end("told" if self._error and not self._done else "lost")

    def _end(self, ending: str, *, keep: bool = False) -> None:
        if not self._busy:
            return
        self._busy = False
        self._timer.cancel()
        self._tally.endings[ending] += 1
        if keep:
            self._on_free(self)
        else:
            self.transport.abort()


class Clients:
    """All clients of some ports, in turn; connections are kept and used again."""

    def __init__(self, *ports: int) -> None:
        self.tally = Tally()
        self._ports = cycle(ports)
        self._free: list[Client] = []
        self._connecting: set[asyncio.Task[None]] = set()

    def send(self, request: bytes, *, leaves_after_s: float | None = None) -> None:
        """One request, on a connection that is free or a new one."""
        while self._free:
            client = self._free.pop()
            if not client.transport.is_closing():
                client.send(request, leaves_after_s=leaves_after_s)
                return
        task = spawn(self._open(request, leaves_after_s), name="client")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _open(self, request: bytes, leaves_after_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, client = await loop.create_connection(
                lambda: Client(self.tally, self._free.append), "127.0.0.1", next(self._ports)
            )
        except OSError:
            self.tally.sent += 1
            self.tally.endings["lost"] += 1
            return
        client.send(request, leaves_after_s=leaves_after_s)

    @property
    def under_way(self) -> int:
        """Requests that have not ended."""
        return self.tally.open + len(self._connecting)

    async def ended(self) -> None:
        """Return once every request has ended, and close what is open."""
        while self.under_way:
            await asyncio.sleep(0.05)
        for client in self._free:
            client.transport.close()
        self._free.clear()
