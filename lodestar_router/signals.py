"""What the process is told from outside while it runs.

    SIGTERM, SIGINT   end: drain, exit 0; once more: end at once, exit 128 + its number
    SIGHUP            read the settings anew

A signal to end that comes before the router listens cancels its start.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

from lodestar_router.tasks import spawn

_logger = logging.getLogger(__name__)


class Signals:
    """The handlers, in place from construction until the process ends."""

    def __init__(self) -> None:
        self.ending = asyncio.Event()
        self.at_once = asyncio.Event()
        self.code = 0  # to exit with
        self.hurried = False  # somebody waits at a terminal
        self._reload: Callable[[], Awaitable[bool]] | None = None
        self._starting: asyncio.Task[object] | None = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def started(self, reload: Callable[[], Awaitable[bool]]) -> None:
        """The router listens: from now on there is something to drain and to reload."""
        self._starting = None
        self._reload = reload

    def _end(self, number: int) -> None:
        if self.ending.is_set():
            self.code = 128 + number
            self.at_once.set()
        self.hurried = number == signal.SIGINT
        self.ending.set()
        if self._starting is not None:
            self._starting.cancel()

    def _hang_up(self) -> None:
        if self._reload is None:
            _logger.info("SIGHUP: the settings are being read already")
        else:
            spawn(self._run(self._reload), name="reload")

    async def _run(self, reload: Callable[[], Awaitable[bool]]) -> None:
        if await reload():
            _logger.info("SIGHUP: the settings were read anew")
