"""Show the router at work on an emulated fleet, then leave it running to be tried.

    python -m perf.demo [--engines 2xA30,2xV100] [--end-after SECONDS]

Exit codes: 0 when it ended by itself or by Ctrl-C, 1 when a request failed or the
router did not start. Nothing that was started outlives it.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from lodestar_router.config.model import EMULATED_MODEL
from lodestar_router.tasks import cancel, spawn
from perf.demo.table import Seen, lines
from perf.demo.traffic import Traffic
from tests.e2e.processes import ManagedProcess, Ports, ProcessDiedError, http_ok

_START_S = 60.0
_TABLE_EVERY_S = 2.0
_SEED = 1


def main(argv: Sequence[str]) -> int:
    """Run the demonstration."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that the router ends
    port = options.port or Ports(8001, 8099).take()
    router = ManagedProcess(
        "router", _command(options, port), env=dict(os.environ), log=options.log
    )
    try:
        print(
            f"starting the router and {options.engines}, emulated; log in {options.log}", flush=True
        )
        router.start()
        router.wait_until(lambda: http_ok(f"http://127.0.0.1:{port}/health"), _START_S)
        return asyncio.run(_show(options, f"http://127.0.0.1:{port}"))
    except ProcessDiedError as error:
        print(error)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        router.stop()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf.demo", description=__doc__)
    parser.add_argument("--engines", default="2xA30,2xV100", help="what follows emulated:")
    parser.add_argument("--policy", default="lodestar")
    parser.add_argument("--rate", type=float, default=8.0, help="requests per second")
    parser.add_argument("--load-for", type=float, default=45.0, help="seconds of traffic")
    parser.add_argument("--end-after", type=float, help="end by itself, in seconds; else at Ctrl-C")
    parser.add_argument("--port", type=int, default=0, help="0 for a free one from 8001 on")
    parser.add_argument("--speed", type=float, default=1.0, help="of the emulated engines")
    parser.add_argument("--log", type=Path, default=Path(".build/demo/router.log"))
    return parser


def _command(options: argparse.Namespace, port: int) -> list[str]:
    return [
        sys.executable, "-m", "lodestar_router",
        "--engines", f"emulated:{options.engines}",
        "--emulated-speed", str(options.speed),
        "--routing-logic", options.policy,
        "--host", "127.0.0.1",
        "--port", str(port),
    ]  # fmt: skip


async def _show(options: argparse.Namespace, url: str) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    if options.end_after is not None:
        loop.call_later(options.end_after, stopping.set)
    seen = Seen()
    traffic = Traffic(url, EMULATED_MODEL, per_s=options.rate, seed=_SEED, done=seen.add)
    sending = spawn(traffic.run(options.load_for), name="traffic")
    started_s = loop.time()
    async with aiohttp.ClientSession() as http:
        while not (sending.done() or stopping.is_set()):
            await _wait(stopping, _TABLE_EVERY_S)
            print(f"\n{await _table(http, url, loop.time() - started_s, options.policy, seen)}")
            sys.stdout.flush()
    await cancel(sending)
    for record in seen.failed[:3]:
        print(record.error)
    if not stopping.is_set():
        print(f"\n{_invitation(url)}", flush=True)
        await stopping.wait()
    return 1 if seen.failed else 0


async def _table(
    http: aiohttp.ClientSession, url: str, seconds: float, policy: str, seen: Seen
) -> str:
    async with http.get(f"{url}/engines") as engines, http.get(f"{url}/metrics") as metrics:
        shown: list[dict[str, Any]] = await engines.json()
        return lines(seconds, policy, shown, await metrics.text(), seen)


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return


def _invitation(url: str) -> str:
    body = (
        f'{{"model": "{EMULATED_MODEL}", "max_tokens": 20, '
        '"messages": [{"role": "user", "content": "Hello"}]}'
    )
    return (
        "The traffic has ended; the router goes on. Try it:\n\n"
        f"curl -i {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'\n\n"
        f"{url}/engines, {url}/metrics and {url}/debug/decisions tell more. Ctrl-C ends it."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
