"""The `lodestar-router` command: flags in, a router that runs until told to stop.

Exit codes: 0 after a drain, 2 with one line on stderr for input it cannot start with.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

# Set before numpy loads. Products here are small: split over threads they take up to
# ten times the CPU, most of it spent waiting for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import uvloop

from lodestar_router import __version__
from lodestar_router.assembly import Router
from lodestar_router.config import Config, parse
from lodestar_router.emulator.fleet import EmulatedFleet
from lodestar_router.errors import ConfigError

_logger = logging.getLogger("lodestar_router")

# Kubernetes kills a pod 30 s after asking it to end.
_DRAIN_S = 25.0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    try:
        read = partial(parse, sys.argv[1:] if argv is None else argv, os.environ)
        config = read()
        _set_up_logging(config)
        uvloop.run(_serve(config, read))
    except ConfigError as error:
        sys.stderr.write(f"lodestar-router: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _set_up_logging(config: Config) -> None:
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for warning in config.warnings:
        _logger.warning("%s", warning)


async def _serve(config: Config, read: Callable[[], Config]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    fleet = EmulatedFleet(
        config.emulated, speed=config.emulated_speed, tokenizer_of=config.tokenizer_of
    )
    try:
        emulated = await fleet.start()

        def with_emulated(config: Config) -> Config:
            return replace(config, engines=(*config.engines, *emulated))

        router = Router(with_emulated(config), lambda: with_emulated(read()))
        await _route(router, config, stopping)
    finally:
        await fleet.stop()


async def _route(router: Router, config: Config, stopping: asyncio.Event) -> None:
    try:
        port = await router.start()
        _logger.info(
            "lodestar-router %s on http://%s:%d, %d engines, policy %s",
            __version__,
            config.host,
            port,
            len(router.engine_ids),
            config.routing_logic,
        )
        await stopping.wait()
    finally:
        _logger.info("stopping")
        await router.stop(_DRAIN_S)


if __name__ == "__main__":
    sys.exit(main())
