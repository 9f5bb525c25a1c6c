"""Where the log's text goes, without ever waiting for whoever reads it.

    file                    written at once
    pipe, terminal, socket  written while there is room; the rest waits in memory, up to
                            `limit_bytes`. What passes that is lost, and a line says how much

A log that nobody reads (a collector that hangs, a stopped terminal) would otherwise stop the
event loop at the next line, and with it every stream.

In       text, in whole lines; from any thread.
Out      bytes in the same order. Lines come whole: pieces of up to PIPE_BUF bytes are
         written in full or not at all.
Cost     a system call per write, two where the other end may be full.
Errors   none: what cannot be written (closed pipe, full disk) is lost.
"""

import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

LIMIT_BYTES = 1024 * 1024  # some 6,000 requests


class Outlet:
    """A stream as logging's handlers want one.

    Args:
        lost: the line that says how many lines were lost.
    """

    def __init__(
        self, descriptor: int, lost: Callable[[int], str], *, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        self._descriptor = descriptor
        self._lost = lost
        self._limit_bytes = limit_bytes
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost_lines = 0
        self._lock = threading.RLock()
        self._room: select.poll | None = None
        with suppress(OSError):
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                self._room = select.poll()
                self._room.register(descriptor, select.POLLOUT)

    def write(self, text: str) -> int:
        """Write now, or as soon as there is room."""
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            if self._waiting_bytes + len(data) > self._limit_bytes:
                self._lost_lines += data.count(b"\n")
            else:
                self._take(data)
                self.drain()
        return len(text)

    def flush(self) -> None:
        """Called after every record; write() has done what can be done."""

    def drain(self) -> None:
        """Write what waits, as far as there is room."""
        with self._lock:
            while self._waiting and (self._room is None or self._room.poll(0)):
                piece = self._waiting.popleft()
                self._waiting_bytes -= len(piece)
                with suppress(OSError):
                    os.write(self._descriptor, piece)
                if self._lost_lines and not self._waiting:
                    lost, self._lost_lines = self._lost_lines, 0
                    self._take(f"{self._lost(lost)}\n".encode())

    def finish(self, within_s: float) -> None:
        """Write what waits if its reader takes it within this time."""
        ends_s = time.monotonic() + within_s
        self.drain()
        while self._waiting and self._room is not None and time.monotonic() < ends_s:
            self._room.poll(50)
            self.drain()

    def _take(self, data: bytes) -> None:
        """Put behind what waits, in pieces as large as can be written at once."""
        if self._waiting and len(self._waiting[-1]) + len(data) <= select.PIPE_BUF:
            self._waiting[-1] += data
        else:
            self._waiting.extend(_pieces(data))
        self._waiting_bytes += len(data)


def _pieces(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = start + select.PIPE_BUF
        if end < len(data):
            end = data.rfind(b"\n", start, end) + 1 or end
        yield data[start:end]
        start = end
