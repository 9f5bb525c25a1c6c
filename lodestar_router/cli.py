"""The `lodestar-router` command: flags in, a router that runs until told to stop.

Exit codes: 0 after a drain, 2 with one line on stderr for input it cannot start with,
128 + the signal's number when a second one cut the drain short.
"""

import asyncio
import gc
import logging
import os
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

# Set before numpy loads. Products here are small: split over threads they take up to
# ten times the CPU, most of it spent waiting for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import uvloop

from lodestar_router import __version__, logs
from lodestar_router.assembly import Router
from lodestar_router.config import Config, parse
from lodestar_router.config.disaggregated_model import BY_ITSELF
from lodestar_router.emulator.fleet import EmulatedFleet
from lodestar_router.emulator.server_settings import KvConnector
from lodestar_router.errors import ConfigError
from lodestar_router.log_outlet import Outlet
from lodestar_router.signals import Signals
from lodestar_router.tasks import cancel, spawn

_logger = logging.getLogger("lodestar_router")
_DRAIN_EVERY_S = 0.1  # what of the log waits for its reader
_LAST_LINES_S = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    try:
        _open_as_many_files_as_allowed()
        read = partial(parse, sys.argv[1:] if argv is None else argv, os.environ)
        config = read()
        outlet = logs.set_up(config.log_level, config.log_format)
        for warning in config.warnings:
            _logger.warning("%s", warning)
        try:
            return uvloop.run(_serve(config, read, outlet))
        finally:
            outlet.finish(_LAST_LINES_S)
    except ConfigError as error:
        sys.stderr.write(f"lodestar-router: {error}\n")
        return 2
    except KeyboardInterrupt:  # before there was a handler
        return 130


def _open_as_many_files_as_allowed() -> None:
    """A stream takes two, and what a shell allows by itself, 1024, is for select(2)."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # "unlimited" is not everywhere a number of files
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(config: Config, read: Callable[[], Config], outlet: Outlet) -> int:
    signals = Signals()
    draining = spawn(_keep_draining(outlet), name="log")
    by_itself = config.routing_logic == BY_ITSELF
    fleet = EmulatedFleet(
        config.emulated,
        speed=config.emulated_speed,
        tokenizer_of=config.tokenizer_of,
        kv_connector=KvConnector.SHARED if by_itself else KvConnector.NIXL,
    )
    try:
        emulated = await fleet.start()

        def with_emulated(config: Config) -> Config:
            return replace(config, engines=(*config.engines, *emulated))

        router = Router(with_emulated(config), lambda: with_emulated(read()))
        await _route(router, config, signals)
    except asyncio.CancelledError:
        if not signals.ending.is_set():
            raise
    finally:
        await fleet.stop()
        await cancel(draining)
    return signals.code


async def _keep_draining(outlet: Outlet) -> None:
    while True:
        await asyncio.sleep(_DRAIN_EVERY_S)
        outlet.drain()


async def _route(router: Router, config: Config, signals: Signals) -> None:
    try:
        port = await router.start()
        # What is there now stays: no full collection has to look at it again.
        gc.collect()
        gc.freeze()
        _logger.info(
            "lodestar-router %s on %s://%s:%d, %d engines, policy %s",
            __version__,
            "https" if config.tls_cert else "http",
            config.host,
            port,
            len(router.engine_ids),
            config.routing_logic,
        )
        signals.started(router.reload)
        await signals.ending.wait()
    finally:
        _logger.info("stopping")
        await router.stop(
            config.drain_timeout_s,
            delay_s=0.0 if signals.hurried else config.drain_delay_s,
            at_once=signals.at_once,
        )


if __name__ == "__main__":
    sys.exit(main())
