"""Crowds: clients that hardly read, and streams that all run at once.

In       a running router in front of stub engines.
Out      a report in plain values, as of `scenarios`.
"""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from perf.soak.clients import Clients
from perf.soak.load import stream
from perf.soak.processes import RouterUnderTest
from perf.soak.scenarios import Report, settled, told

_SLOW_EVENTS = 20_000  # 4.6 MB: more than all buffers on the way hold
_SLOW_MB = 100.0
_SMALL_BUFFER_BYTES = 4096


async def slow_readers(router: RouterUnderTest, *, count: int, seconds: float) -> Report:
    """Clients that read one byte a second of a stream without end."""
    request = stream(router.port, events=_SLOW_EVENTS, gap_ms=0)
    before = await settled(router)
    kernel_mb = _kernel_mb()
    socks = [await _ask(router.port, request) for _ in range(count)]
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
    kernel_mb = _kernel_mb() - kernel_mb
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
        "all_sockets_mb_more": round(kernel_mb, 1),  # of the machine: engines and clients too
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


def _kernel_mb() -> float:
    """What TCP holds of the machine's memory."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1]) * 4096 / 1e6
    return 0.0


async def streams(
    router: RouterUnderTest, engine_port: int, *, count: int, seconds: float
) -> Report:
    """So many streams of 50 tokens a second, through the router and then past it."""
    report: dict[str, Any] = {}
    wrong: list[str] = []
    for way, port in (("routed", router.port), ("direct", engine_port)):
        before_s = (await asyncio.to_thread(router.look)).cpu_s
        began_s = perf_counter()
        clients = Clients(port)
        request = stream(port, events=int(50 * seconds), gap_ms=20)
        for _ in range(count):
            clients.send(request)
            await asyncio.sleep(0.001)
        while clients.under_way:
            await asyncio.sleep(0.05)
        took_s = perf_counter() - began_s
        await clients.ended()
        spent_s = (await asyncio.to_thread(router.look)).cpu_s - before_s
        report[way] = {
            **told(clients.tally), "seconds": round(took_s, 1),
            "core_share": round(spent_s / took_s, 2),
        }  # fmt: skip
        if clients.tally.lost:
            wrong.append(f"{clients.tally.lost} lost {way}")
    return {"streams": count, "tokens_per_s": 50, **report, "wrong": wrong}
