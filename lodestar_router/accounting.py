"""What is said and counted in production-stack's words, as the settings want it."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from lodestar_router.config import Config
from lodestar_router.core.fleet import Fleet
from lodestar_router.logs import Lines
from lodestar_router.own_usage import OwnUsage
from lodestar_router.proxy.metrics import GaugeRow, Metrics
from lodestar_router.proxy.providers import Providers
from lodestar_router.proxy.route_log import LOGGER, RouteLog
from lodestar_router.proxy.session_key import SessionKey
from lodestar_router.stack_gauges import stack_rows, stats_lines
from lodestar_router.tls import engine_tls

_logger = logging.getLogger(__name__)
_READ_SESSIONS = frozenset({"session", "kvaware"})


def route_log_of(config: Config) -> RouteLog:
    """The line per routed request, in the log's format."""
    place = ("route_log.py", RouteLog.routed.__code__.co_firstlineno)
    lines = Lines(LOGGER, config.log_format, place=place)
    return RouteLog(lines, wall_s=lambda: time.time_ns() * 1e-9)


def providers_of(config: Config, metrics: Metrics) -> Providers:
    """External providers; none, usually."""
    return Providers(
        config.external_providers,
        metrics=metrics,
        tls=engine_tls(config) if config.external_providers else None,
        created_s=time.time_ns() // 10**9,
    )


def session_key_of(config: Config) -> SessionKey | None:
    """Where requests name their session; into bodies only for policies that go by it."""
    if config.session_key is None:
        return None
    policies = {config.routing_logic, config.policy_fallback}
    return SessionKey(config.session_key, in_body=bool(policies & _READ_SESSIONS))


class HasTrainer(Protocol):
    """Who may have a trainer."""

    @property
    def trainer_pid(self) -> int | None:
        """The trainer's process, if one runs."""


class Statistics:
    """Gauges of engines and of the router itself; for --log-stats, lines about engines.

    Args:
        steering: knows the trainer's process, which counts as part of the router.
    """

    def __init__(
        self,
        fleet: Fleet,
        metrics: Metrics,
        clock: Callable[[], float],
        steering: HasTrainer,
    ) -> None:
        self._fleet = fleet
        self._metrics = metrics
        self._clock = clock
        self._usage = OwnUsage(
            lambda: filter(None, (os.getpid(), steering.trainer_pid)), clock=clock
        )

    def rows(self) -> Iterator[GaugeRow]:
        """Read at each scrape."""
        yield from stack_rows(self._fleet, self._metrics.stack, self._clock())
        yield from self._usage.rows()

    async def log(self, config: Config) -> None:
        """Log a line per engine now and then until cancelled, if that is wanted."""
        while config.log_stats:
            await asyncio.sleep(config.log_stats_interval_s)
            for line in stats_lines(self._fleet, self._metrics.stack, self._clock()):
                _logger.info("%s", line)
