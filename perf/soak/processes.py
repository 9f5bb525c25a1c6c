"""The router and its engines as processes, and what a look at them tells.

Errors   ProcessDiedError when one does not come up.
"""

import os
import re
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from perf.overhead.process_tree import cpu_s
from perf.overhead.routers import Router
from tests.e2e.processes import ManagedProcess, Ports, http_ok

_START_S = 60.0
_GAUGE = re.compile(r"^lodestar:(inflight_\w+|held_requests|admitted_requests)\{.*\} (\S+)$", re.M)


class Engine:
    """A stub engine that can die and come back on the same port."""

    def __init__(self, port: int, core: int, directory: Path, python: str, module: str) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.deaths = 0
        command = [python, "-m", module, str(port)]
        self._process = ManagedProcess(
            f"engine {port}", ["taskset", "-c", str(core), *command],
            env=dict(os.environ), log=directory / f"engine-{port}.log",
        )  # fmt: skip

    def start(self, *, wait: bool = False) -> None:
        """Start it; with `wait` return once it answers."""
        self._process.start()
        if wait:
            self._process.wait_until(lambda: http_ok(f"{self.url}/health"), _START_S)

    def end(self) -> None:
        """For good."""
        self._process.stop()

    def die(self) -> None:
        """End it at once, with all its connections."""
        self.deaths += 1
        self._process.kill()


@dataclass(frozen=True, slots=True)
class Look:
    """What the router holds."""

    cpu_s: float  # of the whole tree, so far
    resident_mb: float  # of the router's own process
    open_files: int
    inflight: float  # sum of the gauges of what is under way; 0 for a router without such


@dataclass(frozen=True, slots=True)
class Times:
    """What the router has spent so far."""

    cpu_s: float  # of the whole tree
    system_s: float  # of it the router's own process in system calls


class RouterUnderTest:
    """A running router."""

    def __init__(self, process: ManagedProcess, port: int) -> None:
        self._process = process
        self.port = port

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it is alive."""
        return self._process.running

    def times(self) -> Times:
        """What it has spent."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[12])  # stime, the fifteenth of all
        return Times(cpu_s=cpu_s(self.pid), system_s=ticks / os.sysconf("SC_CLK_TCK"))

    def look(self) -> Look:
        """What it holds now."""
        page = ""
        with suppress(OSError):
            url = f"http://127.0.0.1:{self.port}/metrics"
            with urllib.request.urlopen(url, timeout=20) as answer:
                page = answer.read().decode()
        statm = Path(f"/proc/{self.pid}/statm").read_text().split()
        return Look(
            cpu_s=cpu_s(self.pid),
            resident_mb=int(statm[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6,
            open_files=len(os.listdir(f"/proc/{self.pid}/fd")),
            inflight=sum(abs(float(found[2])) for found in _GAUGE.finditer(page)),
        )


def others_cpu_s() -> float:
    """Seconds that processes other than this one and all it started have spent so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    # proc(5): user, nice, system, idle, iowait, irq, softirq
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    busy_s = sum(int(fields[i]) for i in (0, 1, 2, 5, 6)) / ticks
    ended = os.times()
    return busy_s - cpu_s(os.getpid()) - ended.children_user - ended.children_system


@contextmanager
def engines(
    count: int, directory: Path, *, core: int, python: str, module: str
) -> Iterator[list[Engine]]:
    """So many engines that answer."""
    ports = Ports(9400, 9599)
    started = [Engine(ports.take(), core, directory, python, module) for _ in range(count)]
    try:
        for engine in started:
            engine.start(wait=True)
        yield started
    finally:
        for engine in started:
            engine.end()


@contextmanager
def router(
    kind: Router, urls: Sequence[str], directory: Path, *, core: int
) -> Iterator[RouterUnderTest]:
    """The router, once it is healthy."""
    port = Ports(9600 + Random().randrange(100), 9799).take()
    process = ManagedProcess(
        "router", ["taskset", "-c", str(core), *kind.command(port, urls)],
        env=dict(os.environ), log=directory / "router.log",
    )  # fmt: skip
    process.start()
    try:
        process.wait_until(lambda: http_ok(f"http://127.0.0.1:{port}/health"), _START_S)
        yield RouterUnderTest(process, port)
    finally:
        process.stop(40.0)
