"""The requests of the soak, and the pace at which they are sent.

In       a random source; a rate, or how many may be under way at once.
Out      requests handed to `Clients`.
"""

import asyncio
import json
from random import Random
from time import perf_counter

from perf.overhead.cells import CELLS
from perf.overhead.load import http_request
from perf.overhead.stub_engine import MODEL
from perf.soak.clients import Clients

_TICK_S = 0.001
_CATCH_UP_S = 0.1  # a load that stood still for longer does not send all it missed
_SLOWER, _FASTER = 0.85, 1.1
_CROWDED = 200
_MOST_UNDER_WAY = 400


def chats(port: int) -> list[bytes]:
    """Chats of 2 KB that want a whole answer."""
    return [http_request(body, port) for body in CELLS["json_2k"].bodies(seed=1)]


def stream(port: int, *, events: int, gap_ms: int, words: str = "tell me") -> bytes:
    """A chat whose answer comes in so many events."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": words}],
        "stream": True,
        "max_tokens": events,
        "user": f"{gap_ms}ms",
    }
    return http_request(json.dumps(body).encode(), port)


class Mix:
    """Chats and streams, and clients that leave within `leave_s`."""

    def __init__(
        self, port: int, rng: Random, *, streamed: float, leaving: float, leave_s: float
    ) -> None:
        self._rng = rng
        self._chats = chats(port)
        self._stream = stream(port, events=10, gap_ms=5)
        self._streamed, self._leaving, self._leave_s = streamed, leaving, leave_s

    def send(self, clients: Clients) -> None:
        """One request."""
        rng = self._rng
        request = self._stream if rng.random() < self._streamed else rng.choice(self._chats)
        leaves = rng.random() * self._leave_s if rng.random() < self._leaving else None
        clients.send(request, leaves_after_s=leaves)


async def many(mix: Mix, clients: Clients, count: int, *, at_once: int) -> None:
    """Send `count` requests, never more than `at_once` under way; return at the last one's end."""
    left = count
    while left:
        room = min(at_once - clients.under_way, left)
        for _ in range(room):
            mix.send(clients)
        left -= max(room, 0)
        await asyncio.sleep(0.0005)
    while clients.under_way:
        await asyncio.sleep(0.01)


class Pace:
    """Requests a second, steered so that something is as busy as it is to be."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def steer(self, share: float, wanted: float, under_way: int) -> None:
        """Towards `wanted`; down when more is under way than can be the load's doing."""
        step = wanted / share if share > 0 else _FASTER
        if under_way > _CROWDED:
            step = min(step, _SLOWER)
        self.rate = max(self.rate * min(max(step, _SLOWER), _FASTER), 1.0)


async def paced(mix: Mix, clients: Clients, rng: Random, *, pace: Pace, seconds: float) -> None:
    """Send at random times, whatever becomes of what was sent.

    Only _MOST_UNDER_WAY at once: this process and the engines have one core together, and
    while an engine starts on it, thousands would wait for nothing but that.
    """
    next_s = perf_counter()
    ends_s = next_s + seconds
    while (now_s := perf_counter()) < ends_s:
        next_s = max(next_s, now_s - _CATCH_UP_S)
        while next_s <= now_s:
            if clients.under_way < _MOST_UNDER_WAY:
                mix.send(clients)
            next_s += rng.expovariate(pace.rate)
        await asyncio.sleep(_TICK_S)
