"""Kept-alive connections per engine, and the timeouts of what runs on them.

One sweep over all running exchanges replaces a timer per chunk: a timeout may
fire up to `SWEEP_S` late, and relaying a chunk sets no timer.
"""

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from urllib.parse import urlsplit

from lodestar_router.core.types import EngineSpec
from lodestar_router.errors import EngineError, EngineTimeoutError
from lodestar_router.proxy.engine_connection import EngineConnection

SWEEP_S = 0.25

# uvicorn, which serves vLLM, closes an idle connection after 5 s: use none that old.
_KEEP_IDLE_S = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds; 0 means no limit."""

    connect_s: float
    first_byte_s: float  # request sent to first byte of the answer
    idle_s: float  # between two chunks of the answer
    total_s: float  # request sent to end of the answer


class EnginePool:
    """Connections to one engine."""

    def __init__(self, spec: EngineSpec, timeouts: Timeouts) -> None:
        parts = urlsplit(spec.url)
        self.spec = spec
        self._timeouts = timeouts
        self._secure = ssl.create_default_context() if parts.scheme == "https" else None
        self._hostname = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self.host = parts.netloc.encode()
        self.path_prefix = parts.path.rstrip("/").encode()
        self._idle: deque[tuple[EngineConnection, float]] = deque()
        self._busy: set[EngineConnection] = set()
        self._connecting = 0

    @property
    def busy(self) -> bool:
        """Whether exchanges are under way, or connections for them."""
        return bool(self._busy) or self._connecting > 0

    def take_idle(self) -> EngineConnection | None:
        """An open connection that carried an exchange lately, if there is one."""
        oldest_s = asyncio.get_running_loop().time() - _KEEP_IDLE_S
        while self._idle:
            connection, since_s = self._idle.pop()
            if not connection.closed and since_s > oldest_s:
                self._busy.add(connection)
                return connection
            connection.transport.close()
        return None

    async def connect(self) -> EngineConnection:
        """A new connection.

        Raises:
            EngineError, EngineTimeoutError: the engine cannot be reached.
        """
        loop = asyncio.get_running_loop()
        self._connecting += 1
        try:
            async with asyncio.timeout(self._timeouts.connect_s or None):
                _, connection = await loop.create_connection(
                    lambda: EngineConnection(loop, self._forget),
                    self._hostname,
                    self._port,
                    ssl=self._secure,
                )
        except TimeoutError as error:
            raise EngineTimeoutError(f"{self.spec.url} did not accept a connection") from error
        except OSError as error:
            raise EngineError(f"{self.spec.url} cannot be reached: {error}") from error
        finally:
            self._connecting -= 1
        self._busy.add(connection)
        return connection

    def give_back(self, connection: EngineConnection) -> None:
        """The exchange on it is over."""
        self._busy.discard(connection)
        if not connection.closed and not connection.transport.is_closing():
            self._idle.append((connection, asyncio.get_running_loop().time()))

    def _forget(self, connection: EngineConnection) -> None:
        self._busy.discard(connection)

    def sweep(self, now_s: float) -> None:
        """Fail exchanges that waited too long; close connections idle too long."""
        limits = self._timeouts
        for connection in list(self._busy):
            if not connection.running:
                continue
            if limits.total_s and now_s - connection.started_at_s > limits.total_s:
                connection.fail(EngineTimeoutError("the answer took too long"))
            elif connection.paused:
                continue
            elif connection.answering:
                if limits.idle_s and now_s - connection.active_at_s > limits.idle_s:
                    connection.fail(EngineTimeoutError("the engine stopped sending"))
            elif limits.first_byte_s and now_s - connection.started_at_s > limits.first_byte_s:
                connection.fail(EngineTimeoutError("the engine did not answer in time"))
        while self._idle and now_s - self._idle[0][1] > _KEEP_IDLE_S:
            self._idle.popleft()[0].transport.close()

    def close(self) -> None:
        """Close every connection; running exchanges fail."""
        for connection in list(self._busy):
            connection.fail(EngineError("the router is stopping"))
        for connection, _ in self._idle:
            connection.transport.close()
        self._idle.clear()
