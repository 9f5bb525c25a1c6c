"""Many streams of perf.soak.token_engine, read with less CPU than they cost the router.

In       where to ask; how many streams of how many tokens.
Out      `Streams`: which ended whole, and how long tokens took from the engine's write to
         the client's read, while all streams ran.
Cost     one stream in _PROMPT_EVERY is read as its tokens come; the others every
         _LAZILY_S, for what they are to the router is the same and all tokens are counted.
         Half a core for 2,000 streams of 50 tokens a second.
"""

import re
import select
import socket
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic, monotonic_ns

from perf.overhead.stub_engine import DONE
from perf.soak.load import stream
from perf.soak.token_engine import TICK_S

_PROMPT_EVERY = 20
_LAZILY_S = 0.25
_STEP_S = 0.002
_READ_BYTES = 262_144
_PATIENCE_S = 60.0
_WRITTEN_NS = re.compile(rb'"content": "(\d{19})"')
_END = b"\n\n"  # of an event
_AFTER_LAST = DONE[DONE.rindex(_END) + len(_END) :]


@dataclass(slots=True)
class Streams:
    """What became of all streams; of times and tokens those while all of them ran."""

    whole: int = 0
    wrong: int = 0  # ended otherwise
    all_run: bool = False
    seconds: float = 0.0
    tokens: int = 0
    delays_s: "array[float]" = field(default_factory=lambda: array("d"))
    gaps_s: "array[float]" = field(default_factory=lambda: array("d"))  # between two reads


class Reader:
    """One stream."""

    def __init__(self, port: int, request: bytes, tokens: int, *, timed: bool) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.sendall(request)
        self.sock.setblocking(False)
        self.begun = self.ended = False
        self._timed = timed
        self._missing = tokens + 1  # [DONE] is an event too
        self._rest = b""  # an event that is cut off
        self._read_s = 0.0

    def read(self, seen: Streams) -> None:
        """Take what came."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        now_ns = monotonic_ns()
        came = self._rest + data
        count = came.count(_END)
        end = came.rfind(_END) + len(_END) if count else 0
        self._rest = came[end:]
        self._missing -= count
        self.begun |= count > 0
        if seen.all_run:
            seen.tokens += count
            if self._timed and count:
                self._time(seen, came[:end], now_ns)
        if not data or self._rest == _AFTER_LAST:
            self.ended = True
            whole = not self._missing and bool(data)
            seen.whole += whole
            seen.wrong += not whole
            self.sock.close()

    def _time(self, seen: Streams, events: bytes, now_ns: int) -> None:
        seen.delays_s.extend(
            (now_ns - int(written)) / 1e9 for written in _WRITTEN_NS.findall(events)
        )
        if self._read_s:
            seen.gaps_s.append(now_ns / 1e9 - self._read_s)
        self._read_s = now_ns / 1e9


class Readers:
    """All of them."""

    def __init__(self, ports: Sequence[int], *, count: int, tokens: int) -> None:
        self.seen = Streams()
        self._ports, self._count, self._tokens = ports, count, tokens
        self._poll = select.epoll()
        self._prompt: dict[int, Reader] = {}
        self._lazy: deque[Reader] = deque()
        self._due = 0.0  # of the lazy ones, how many
        self._at_s = monotonic()

    def run(self, on_all: Callable[[], None], on_first_end: Callable[[], None]) -> Streams:
        """Begin all streams, at the ports in turn, and read them to their ends."""
        requests = [stream(port, events=self._tokens, gap_ms=20) for port in self._ports]
        for number in range(self._count):
            turn = number % len(self._ports)
            self._begin(self._ports[turn], requests[turn], prompt=number % _PROMPT_EVERY == 0)
            self._step()
        readers = [*self._prompt.values(), *self._lazy]
        self._step_until(lambda: all(reader.begun for reader in readers))
        on_all()
        began_s, self.seen.all_run = monotonic(), True
        self._step_until(lambda: any(reader.ended for reader in readers))
        self.seen.seconds, self.seen.all_run = monotonic() - began_s, False
        on_first_end()
        self._step_until(lambda: all(reader.ended for reader in readers))
        self.seen.wrong += sum(not reader.ended for reader in readers)
        return self.seen

    def _begin(self, port: int, request: bytes, *, prompt: bool) -> None:
        reader = Reader(port, request, self._tokens, timed=prompt)
        if prompt:
            self._prompt[reader.sock.fileno()] = reader
            self._poll.register(reader.sock, select.EPOLLIN)
        else:
            self._lazy.append(reader)

    def _step_until(self, done: Callable[[], bool]) -> None:
        """Read on; give up when the last stream should long have ended."""
        until_s = monotonic() + self._tokens * TICK_S + _PATIENCE_S
        while not done() and monotonic() < until_s:
            self._step()

    def _step(self) -> None:
        for number, _ in self._poll.poll(_STEP_S):
            self._prompt[number].read(self.seen)
        now_s = monotonic()
        self._due += len(self._lazy) * (now_s - self._at_s) / _LAZILY_S
        self._at_s = now_s
        for _ in range(min(int(self._due), len(self._lazy))):
            reader = self._lazy[0]
            self._lazy.rotate(-1)
            if not reader.ended:
                reader.read(self.seen)
        self._due %= 1.0
