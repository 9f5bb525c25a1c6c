"""Kept-alive connections to one engine, and the sweep over what runs on them.

The sweep also notices an engine that hangs: while streams wait for their first
token there, no byte of any answer comes. One that works sends tokens to
somebody, however long its queue is.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Collection
from math import inf
from time import monotonic
from urllib.parse import urlsplit

from lodestar_router.core.types import EngineSpec
from lodestar_router.errors import EngineError, EngineUnreachableError
from lodestar_router.proxy.deadlines import STOOD_STILL_S, Timeouts
from lodestar_router.proxy.engine_connection import EngineConnection
from lodestar_router.proxy.outbox import Outbox
from lodestar_router.proxy.read_pace import ReadPace

# uvicorn, which serves vLLM, closes an idle connection after 5 s: use none that old.
_KEEP_IDLE_S = 4.0


class EnginePool:
    """Connections to one engine.

    Args:
        tls: for an engine whose URL begins with https; by default the system's CAs are trusted.
        hang_s: seconds without a byte after which the engine hangs; 0 for never.
        on_hang: told so, again after every further `hang_s`.
        hidden: headers of answers that clients do not get.
        pace: shared with other pools, whose streams have the same loop.
    """

    def __init__(
        self,
        spec: EngineSpec,
        timeouts: Timeouts,
        *,
        tls: ssl.SSLContext | None = None,
        hang_s: float = 0.0,
        on_hang: Callable[[], None] = lambda: None,
        hidden: Collection[bytes] = (),
        pace: ReadPace | None = None,
    ) -> None:
        parts = urlsplit(spec.url)
        self.spec = spec
        self.timeouts = timeouts
        self._hang_s = hang_s
        self._on_hang = on_hang
        self._hidden = hidden
        self._pace = pace or ReadPace()
        self._secure = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._hostname = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self.host = parts.netloc.encode()
        self.path_prefix = parts.path.rstrip("/").encode()
        self._idle: deque[tuple[EngineConnection, float]] = deque()
        self._busy: set[EngineConnection] = set()
        self._connecting = 0
        self._outbox: Outbox | None = None
        self._swept_at_s: float | None = None
        self._answered = False  # an answer ended since the last sweep
        self._silent_s = 0.0  # for how long streams have waited without a byte for anybody
        self.heard_at_s = 0.0  # when body bytes last came

    @property
    def busy(self) -> bool:
        """Whether exchanges are under way, or connections for them."""
        return bool(self._busy) or self._connecting > 0

    def take_idle(self) -> EngineConnection | None:
        """An open connection that carried an exchange lately, if there is one."""
        if not self._idle:
            return None
        oldest_s = monotonic() - _KEEP_IDLE_S
        while self._idle:
            connection, since_s = self._idle.pop()
            if connection.closed or connection.transport.is_closing() or since_s <= oldest_s:
                connection.transport.close()
                continue
            self._busy.add(connection)
            return connection
        return None

    async def connect(self, ends_at_s: float) -> EngineConnection:
        """A new connection, by `ends_at_s` at the latest.

        Raises:
            EngineUnreachableError: there is none.
        """
        loop = asyncio.get_running_loop()
        limit_s = min(self.timeouts.connect_s or inf, ends_at_s - loop.time())
        outbox = self._outbox = self._outbox or Outbox(loop)
        self._connecting += 1
        try:
            async with asyncio.timeout(None if limit_s == inf else limit_s):
                _, connection = await loop.create_connection(
                    lambda: EngineConnection(loop, outbox, self._pace, self._forget, self._hidden),
                    self._hostname,
                    self._port,
                    ssl=self._secure,
                )
        except TimeoutError as error:
            raise EngineUnreachableError("the engine did not accept a connection") from error
        except OSError as error:
            raise EngineUnreachableError("the engine cannot be reached") from error
        finally:
            self._connecting -= 1
        self._busy.add(connection)
        return connection

    def give_back(self, connection: EngineConnection) -> None:
        """The exchange on it is over."""
        self._busy.discard(connection)
        self._answered |= connection.completed
        if not connection.closed and not connection.transport.is_closing():
            self._idle.append((connection, monotonic()))

    def _forget(self, connection: EngineConnection) -> None:
        self._busy.discard(connection)

    def sweep(self, now_s: float) -> None:
        """Fail exchanges that waited too long; close connections idle too long."""
        elapsed_s = 0.0 if self._swept_at_s is None else now_s - self._swept_at_s
        self._swept_at_s = now_s
        if elapsed_s > STOOD_STILL_S:
            return
        heard, self._answered, waiting = self._answered, False, False
        for connection in tuple(self._busy):
            heard |= connection.check(now_s)
            waiting |= connection.running and connection.stream and not connection.answering
        if heard:
            self.heard_at_s, self._silent_s = now_s, 0.0
        elif waiting:
            self._silent_s += elapsed_s
            if 0 < self._hang_s < self._silent_s:
                self._silent_s = 0.0
                self._on_hang()
        while self._idle and now_s - self._idle[0][1] > _KEEP_IDLE_S:
            self._idle.popleft()[0].transport.close()

    def give_up_waiting(self, reason: str) -> None:
        """The engine is dead, whatever its sockets say: nothing will be answered any more."""
        for connection in tuple(self._busy):
            if connection.running and not connection.answering:
                connection.fail(EngineError(reason))

    def close(self) -> None:
        """Close every connection; running exchanges fail."""
        for connection in tuple(self._busy):
            connection.fail(EngineError("the router is stopping"))
        for connection, _ in self._idle:
            connection.transport.close()
        self._idle.clear()
