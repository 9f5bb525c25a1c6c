"""How soon a flooded router says how it is.

In       a router's port; a flood of connections and requests in a process of its own.
Out      the seconds that each question took on a connection of its own, connecting included.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
from asyncio import to_thread
from dataclasses import dataclass, field

from perf.soak.processes import RouterUnderTest
from perf.soak.scenarios import Report, settled

WITHIN_S = 1.0
_MOST_OPEN = 6000
_EVERY_S = 0.05
_LOOK_EVERY = 10  # questions
_PATIENCE_S = 20.0


@dataclass(slots=True)
class Health:
    """What was heard of a router that is asked how it is."""

    delays_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    most_queued: int = 0  # connections that the router had not accepted

    def quantile_s(self, share: float) -> float:
        """Of the times that an answer took."""
        ordered = sorted(self.delays_s)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def watch_health(port: int, seconds: float) -> Health:
    """Ask for so long, again and again."""
    health = Health()
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        began_s = time.monotonic()
        try:
            start = _ask(port)
        except OSError as error:
            start = repr(error).encode()
        health.delays_s.append(time.monotonic() - began_s)
        if not start.startswith(b"HTTP/1.1 200 "):
            health.failures.append(start[:80].decode("latin-1"))
        if len(health.delays_s) % _LOOK_EVERY == 1:
            health.most_queued = max(health.most_queued, _queued(port))
        time.sleep(_EVERY_S)
    return health


def _ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), _PATIENCE_S) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nhost: router\r\nconnection: close\r\n\r\n")
        return sock.recv(4096)


def _queued(port: int) -> int:
    """Connections that the system holds for the listening socket, as ss(8) says."""
    if shutil.which("ss") is None:
        return 0
    command = ["ss", "-ltnH", f"sport = :{port}"]
    fields = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(fields[1]) if fields else 0


def flood_process(port: int, seconds: float, *, most_open: int) -> "subprocess.Popen[str]":
    """The flood, begun."""
    command = [sys.executable, "-m", "perf.soak.flood", str(port), str(seconds), str(most_open)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def flooded(router: RouterUnderTest, *, seconds: float) -> Report:
    """Ask how it is during a flood, and what is left of it afterwards."""
    before = await settled(router)
    with flood_process(router.port, seconds + 1.0, most_open=_MOST_OPEN) as flood:
        health = await to_thread(watch_health, router.port, seconds)
        told, _ = flood.communicate()
    after = await settled(router)
    wrong = [f"{len(health.failures)} questions failed"] if health.failures else []
    if max(health.delays_s) >= WITHIN_S:
        wrong.append(f"/health took {max(health.delays_s):.2f} s")
    if after.inflight:
        wrong.append(f"{after.inflight:g} in the gauges of what is under way")
    return {
        "flood": json.loads(told),
        "questions": len(health.delays_s),
        "health_p50_ms": round(1e3 * health.quantile_s(0.5), 1),
        "health_p99_ms": round(1e3 * health.quantile_s(0.99), 1),
        "health_most_ms": round(1e3 * max(health.delays_s), 1),
        "failures": health.failures[:5],
        "most_in_the_systems_queue": health.most_queued,
        "open_files": [before.open_files, after.open_files],
        "wrong": wrong,
    }
