"""A crowd that connects and asks as fast as a core can, and takes no answer.

    python -m perf.soak.flood PORT SECONDS OPEN

In       a router's port; how many connections it holds, the oldest closed for new ones.
Out      one JSON line: connections begun, requests sent.
Cost     a core.
"""

import errno
import json
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from perf.soak.load import stream

_TOGETHER = 50
_ASKING = 10  # of these
_REQUESTS = 4  # at once on a connection


def flood(port: int, *, seconds: float, most_open: int) -> dict[str, int]:
    """Flood for so long."""
    requests = stream(port, events=50, gap_ms=20, words="word " * 200) * _REQUESTS
    held: deque[socket.socket] = deque()
    begun = sent = 0
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        came = [sock for sock in (_begin(port) for _ in range(_TOGETHER)) if sock is not None]
        begun += len(came)
        for sock in came[:_ASKING]:
            with suppress(OSError):  # not connected yet
                sock.send(requests)
                sent += _REQUESTS
        held += came
        while len(held) > most_open:
            held.popleft().close()
    return {"connections": begun, "requests": sent}


def _begin(port: int) -> socket.socket | None:
    sock = socket.socket()
    sock.setblocking(False)
    if sock.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS):
        return sock
    sock.close()
    return None


def main(argv: Sequence[str]) -> None:
    """Flood and say how much it was."""
    port, seconds, most_open = argv
    report = flood(int(port), seconds=float(seconds), most_open=int(most_open))
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
