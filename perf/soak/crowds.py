"""Crowds: clients that hardly read, and streams that all run at once.

In       a running router in front of stub engines.
Out      a report in plain values, as of `scenarios`.
"""

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any

from lodestar_router.tasks import spawn
from perf.soak.flooded import WITHIN_S, watch_health
from perf.soak.load import stream
from perf.soak.processes import RouterUnderTest, Times, others_cpu_s
from perf.soak.readers import Readers
from perf.soak.scenarios import Report, left_over, settled
from perf.soak.token_engine import TICK_S

_SLOW_EVENTS = 20_000  # 4.6 MB: more than all buffers on the way hold
_SLOW_MB = 100.0
_SMALL_BUFFER_BYTES = 4096
# ss(8): received and unread, and written and not yet acknowledged.
_SOCKET_MEMORY = re.compile(r"skmem:\(r(\d+),.*?,w(\d+),")


async def slow_readers(router: RouterUnderTest, *, count: int, seconds: float) -> Report:
    """Clients that read one byte a second of a stream without end."""
    request = stream(router.port, events=_SLOW_EVENTS, gap_ms=0)
    before = await settled(router)
    socks = [await _ask(router.port, request) for _ in range(count)]
    waiting = set(socks)
    while waiting:  # until all are being answered
        waiting.difference_update([sock for sock in waiting if _has_something(sock)])
        await asyncio.sleep(0.1)
    loop = asyncio.get_running_loop()
    until_s = perf_counter() + seconds
    most_mb, read, gone = before.resident_mb, 0, 0
    while perf_counter() < until_s:
        await asyncio.sleep(1.0)
        for sock in socks:
            with suppress(BlockingIOError):
                piece = sock.recv(1)
                read += len(piece)
                gone += not piece
        look = await loop.run_in_executor(None, router.look)
        most_mb = max(most_mb, look.resident_mb)
    sockets_mb = await asyncio.to_thread(_sockets_mb, router.pid)
    for sock in socks:
        sock.close()
    after = await settled(router)
    cost_mb = most_mb - before.resident_mb
    wrong = [f"{cost_mb:.0f} MB"] if cost_mb > _SLOW_MB else []
    if gone:
        wrong.append(f"{gone} were cut off")
    if after.inflight:
        wrong.append(f"{after.inflight:g} in the gauges of what is under way")
    return {
        "clients": count,
        "bytes_read": read,
        "resident_mb_more": round(cost_mb, 1),
        "sockets_mb": None if sockets_mb is None else round(sockets_mb, 1),
        "open_files": [before.open_files, after.open_files],
        "wrong": wrong,
    }


async def _ask(port: int, request: bytes) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    await asyncio.get_running_loop().sock_sendall(sock, request)
    return sock


def _has_something(sock: socket.socket) -> bool:
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    return True


def _sockets_mb(pid: int) -> float | None:
    """What the system holds for a process's TCP connections; None if it cannot be asked."""
    if shutil.which("ss") is None:
        return None
    command = ["ss", "-tnpmH"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = sum(
        sum(map(int, found.groups()))
        for entry in re.split(r"\n(?=\S)", text)
        if f"pid={pid}," in entry and (found := _SOCKET_MEMORY.search(entry))
    )
    return used / 1e6


async def streams(
    router: RouterUnderTest, engine_ports: Sequence[int], *, count: int, seconds: float
) -> Report:
    """So many streams of 50 tokens a second, through the router and then past it."""
    tokens = int(seconds / TICK_S)
    before = await settled(router)
    asking = asyncio.to_thread(watch_health, router.port, seconds)
    health = spawn(asking, name="health")
    routed = await asyncio.to_thread(_read_all, router, [router.port], count, tokens)
    asked = await health
    after = await settled(router)
    direct = await asyncio.to_thread(_read_all, router, engine_ports, count, tokens)
    wrong = left_over(before, after, flat=False)
    wrong += [f"{way['wrong']} not whole" for way in (routed, direct) if way["wrong"]]
    if max(asked.delays_s) >= WITHIN_S:
        wrong.append(f"/health took {max(asked.delays_s):.2f} s")
    return {
        "streams": count,
        "tokens_per_s_each": 1 / TICK_S,
        "routed": routed,
        "direct": direct,
        "health_p50_ms": round(1e3 * asked.quantile_s(0.5), 1),
        "health_most_ms": round(1e3 * max(asked.delays_s), 1),
        "wrong": wrong,
    }


def _read_all(
    router: RouterUnderTest, ports: Sequence[int], count: int, tokens: int
) -> dict[str, Any]:
    spent: list[tuple[Times, float]] = []

    def look() -> None:
        spent.append((router.times(), others_cpu_s()))

    seen = Readers(ports, count=count, tokens=tokens).run(look, look)
    (began, others_s), (ended, others_then_s) = spent
    cpu_s = ended.cpu_s - began.cpu_s
    return {
        "whole": seen.whole,
        "wrong": seen.wrong,
        "seconds": round(seen.seconds, 1),
        "tokens_per_s": round(seen.tokens / seen.seconds),
        "delay_ms": _quantiles_ms(seen.delays_s),
        "between_reads_ms": _quantiles_ms(seen.gaps_s),
        "core_share": round(cpu_s / seen.seconds, 2),
        "of_it_in_the_system": round((ended.system_s - began.system_s) / seen.seconds, 2),
        "cores_that_others_took": round((others_then_s - others_s) / seen.seconds, 2),
        "cpu_us_per_token": round(1e6 * cpu_s / seen.tokens, 1),
    }


def _quantiles_ms(times_s: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times_s) or [0.0]
    return {
        name: round(1e3 * ordered[int(share * (len(ordered) - 1))], 2)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1.0))
    }
