"""An engine whose streams all get their next token at once, every 20 ms, as a batch does.

    python -m perf.soak.token_engine PORT

In       requests as of perf.overhead.stub_engine; `max_tokens` of those that stream.
Out      of these, `max_tokens` events, each a write of its own; their content is the time
         at which it was written, in nanoseconds of the monotonic clock.
Cost     5 us per event, nearly all of it the system's.
"""

import asyncio
import os
import sys
from contextlib import suppress
from time import monotonic, monotonic_ns

import uvloop

from perf.overhead.stub_engine import DONE, STREAM_HEAD, StubEngine, Wish, token_event

TICK_S = 0.02  # 50 tokens a second, which people can still read along
_DIGITS = 19  # of a time
_BEFORE, _AFTER = token_event("#" * _DIGITS).split(b"#" * _DIGITS)


class Batch:
    """The streams that run."""

    def __init__(self) -> None:
        self._left: dict[TokenEngine, int] = {}

    def add(self, stream: "TokenEngine", tokens: int) -> None:
        """From the next tick on."""
        self._left[stream] = tokens

    def remove(self, stream: "TokenEngine") -> None:
        """Its client has left."""
        self._left.pop(stream, None)

    def step(self) -> None:
        """A token for each stream."""
        left = self._left
        for stream, tokens in tuple(left.items()):
            stream.write(b"%b%0*d%b" % (_BEFORE, _DIGITS, monotonic_ns(), _AFTER))
            left[stream] = tokens - 1
            if tokens == 1:
                del left[stream]
                stream.write(DONE)


class TokenEngine(StubEngine):
    """One connection of a router."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._fd = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        self._batch.remove(self)

    def answer(self, wish: Wish) -> None:
        if not wish.stream:
            super().answer(wish)
            return
        self.transport.write(STREAM_HEAD)
        self._batch.add(self, wish.max_tokens)

    def write(self, data: bytes) -> None:
        """Past the transport, which takes longer; unless the system has no room."""
        if not self.transport.get_write_buffer_size():
            with suppress(OSError):
                data = data[os.write(self._fd, data) :]
        if data and not self.transport.is_closing():
            self.transport.write(data)


async def _serve(port: int) -> None:
    batch = Batch()
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: TokenEngine(batch), "127.0.0.1", port, backlog=4096)
    next_s = monotonic()
    while True:
        batch.step()
        next_s += TICK_S
        await asyncio.sleep(max(next_s - monotonic(), 0.0))


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
