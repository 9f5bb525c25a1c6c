"""Has a running router take over settings that have changed.

    file changed, or reload() called ─► read everything ─► apply what can change now
                                            │ wrong            │ cannot be applied
                                            └─────────► say so, keep what there is

In       how settings are read; how they are applied; the file to follow.
Out      `error`: why the newest settings are not in force, "" if they are.
Cost     one read of a small file per `every_s`, off the event loop.
Errors   none: they are logged once and kept in `error`.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path

from lodestar_router.config import Config
from lodestar_router.errors import ConfigError

_logger = logging.getLogger(__name__)

_EVERY_S = 2.0  # a ConfigMap takes up to a minute to get here anyway

Apply = Callable[[Config], Awaitable[tuple[str, ...]]]


class Reloader:
    """Keeps the router's settings those of its sources.

    Args:
        read: the settings as they stand now, from all sources.
        apply: makes a router take them over; returns what needs a restart.
        said: warnings of the settings that were logged already.
    """

    def __init__(self, read: Callable[[], Config], apply: Apply, *, said: Iterable[str]) -> None:
        self._read = read
        self._apply = apply
        self._said = set(said)
        self._one_at_a_time = asyncio.Lock()
        self.error = ""

    async def reload(self) -> bool:
        """Read all settings anew and apply them; False if they stay as they were."""
        async with self._one_at_a_time:
            try:
                config = await asyncio.to_thread(self._read)
                waiting = await self._apply(config)
            except ConfigError as error:
                self._failed(str(error))
                return False
            if self.error:
                _logger.info("the configuration can be read again")
            self.error = ""
            for warning in config.warnings:
                self._say(warning)
            for name in waiting:
                self._say(f"{name} has changed; that needs a restart")
            return True

    async def follow(self, path: Path, *, every_s: float = _EVERY_S) -> None:
        """Reload whenever the file's content has changed, until cancelled."""
        # The first look also reloads: the file may have changed since it was read at the start.
        seen: bytes | None = None
        while True:
            try:
                digest = await asyncio.to_thread(_digest, path)
            except OSError as error:
                self._failed(f"{path}: cannot be read: {error.strerror or error}")
                seen = None
            else:
                if digest != seen:
                    seen = digest
                    await self.reload()
            await asyncio.sleep(every_s)

    def gauges(self) -> Iterator[tuple[str, str, dict[str, str], float]]:
        """For /metrics."""
        stale = float(bool(self.error))
        yield "lodestar:config_stale", "1 if the newest settings cannot be applied.", {}, stale

    def _failed(self, error: str) -> None:
        if error != self.error:
            _logger.error("the configuration stays as it was: %s", error)
        self.error = error

    def _say(self, warning: str) -> None:
        if warning not in self._said:
            self._said.add(warning)
            _logger.warning("%s", warning)


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
