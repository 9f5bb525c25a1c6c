"""The listening socket: accepts clients, routes by path, sweeps timeouts, drains."""

import asyncio
import logging
import resource
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence

from msgspec import structs

from lodestar_router.core.types import EngineId
from lodestar_router.errors import RequestError, RouterBusyError
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.client_keys import ClientKeys
from lodestar_router.proxy.control import ControlHandler
from lodestar_router.proxy.deadlines import SWEEP_S
from lodestar_router.proxy.engine_pool import EnginePool
from lodestar_router.proxy.handler import RouteHandler
from lodestar_router.proxy.listener import Listener
from lodestar_router.proxy.messages import Request, error_response
from lodestar_router.proxy.outbox import Outbox
from lodestar_router.proxy.request_reader import Limits
from lodestar_router.proxy.routed_paths import METHODS
from lodestar_router.proxy.service import Access, Service
from lodestar_router.tasks import cancel, spawn

_logger = logging.getLogger(__name__)

# An idle client connection is kept longer than most clients keep theirs, so that
# the client, not the router, closes it: no request is lost to that race.
_KEEP_CLIENT_S = 75.0  # as nginx
_LAST_WORDS_S = 0.2  # for the error events of streams that are cut to leave
# Open files that are not clients': engines' feeds, the trainer, logs. Each client may need
# one more for its engine.
_OTHER_FILES = 128
_SPARE_CONNECTIONS = 32  # for /health and its like when all others are busy
_IDLE_S = 1.0  # who has just come is about to ask
_CLOSED_TOGETHER = 8  # a crowd costs one look at all connections per eighth of them


class Server:
    """The router's HTTP edge.

    Args:
        most_connections: of clients; by default what the limit of open files leaves room for.
    """

    def __init__(
        self,
        *,
        routes: RouteHandler,
        control: ControlHandler,
        services: Sequence[Service] = (),
        pools: Mapping[EngineId, EnginePool],
        limits: Limits,
        keys: ClientKeys,
        tls: ssl.SSLContext | None = None,
        root_path: str = "",
        most_connections: int | None = None,
    ) -> None:
        self._most_connections = most_connections or _most_connections()
        self._root_path = root_path  # "" or /PREFIX
        self._routes = routes
        self._control = control
        self._services = services
        self._pools = pools
        self._limits = limits
        self.keys = keys
        self._tls = tls
        self.connections: set[ClientConnection] = set()
        self._outbox: Outbox | None = None
        self._leaving = False
        self._listener: Listener | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which the system chose if `port` is 0.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        self._listener = Listener(self._connection, room=self._room, tls=self._tls)
        bound_port = await self._listener.start(host, port)
        self._sweeper = spawn(self._sweep(), name="sweeper")
        return bound_port

    def _room(self, wanted: int) -> int:
        """For how many more connections there is room, once the longest idle ones are closed."""
        taken, most = len(self.connections), self._most_connections
        if taken + wanted > most:
            since_s = asyncio.get_running_loop().time() - _IDLE_S
            idle = [
                each
                for each in self.connections
                if each.active_at_s < since_s and not each.busy and not each.gone
            ]
            idle.sort(key=lambda each: each.active_at_s)
            for connection in idle[: max(taken + wanted - most, len(idle) // _CLOSED_TOGETHER)]:
                connection.close()
                taken -= 1
        return most + _SPARE_CONNECTIONS - taken

    def _connection(self) -> ClientConnection:
        loop = asyncio.get_running_loop()
        if self._outbox is None:
            self._outbox = Outbox(loop)
        connection = ClientConnection(
            self._handle, self._limits, self.connections, loop, self._outbox
        )
        connection.reader.last = self._leaving
        return connection

    async def _handle(self, request: Request, client: ClientConnection) -> None:
        if self._root_path:
            request = self._below_root(request)
        if self.keys.required:
            try:
                request = self._admitted(request)
            except RequestError as error:
                client.write(error_response(error, close=not request.keep_alive))
                return
        method = METHODS.get(request.path)
        if method is not None:
            if len(self.connections) > self._most_connections:
                full = RouterBusyError("there are as many connections as there can be")
                client.write(error_response(full, close=True))
                client.drain()
            elif request.method == method:
                await self._routes(request, client)
            else:
                client.send_method_not_allowed(method)
        elif self._control.serves(request.path):
            self._control(request, client)
        elif (service := self._service(request.path)) is not None:
            await service(request, client)
        else:
            client.send_not_found(request.path)

    def _service(self, path: str) -> Service | None:
        return next((service for service in self._services if service.serves(path)), None)

    def _below_root(self, request: Request) -> Request:
        """The request without the prefix that a proxy in front may have left in its path."""
        path = request.path.removeprefix(self._root_path)
        if path == request.path or path[:1] not in ("", "/"):
            return request
        return structs.replace(
            request, path=path, target=request.target[len(self._root_path) :] or b"/"
        )

    def _admitted(self, request: Request) -> Request:
        """The request without its key.

        Raises:
            RequestError: it has no key, or not the right one.
        """
        path = request.path
        service = None if path in METHODS else self._service(path)
        access = (service or self._control).open_to(path)
        if access is Access.ALL:
            return request
        return self.keys.admit(request, admin=access is Access.ADMINS)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                self._sweep_once(loop.time())
            except Exception:  # an edge: without sweeps no timeout would ever take effect
                _logger.exception("sweep failed")

    def _sweep_once(self, now_s: float) -> None:
        for pool in list(self._pools.values()):
            pool.sweep(now_s)
        for connection in list(self.connections):
            connection.check(now_s)
            idle_s = now_s - connection.active_at_s
            if connection.answering or idle_s < _KEEP_CLIENT_S:
                continue
            if connection.gone and idle_s > 2 * _KEEP_CLIENT_S:
                connection.abort()  # it never read the rest of its answer
            else:
                connection.close()

    async def stop(
        self, drain_s: float, *, delay_s: float = 0.0, at_once: asyncio.Event | None = None
    ) -> None:
        """Be no longer ready, then accept nothing more, then let running answers end.

        Args:
            drain_s: until the answers that still run are cut.
            delay_s: of these, how long requests are taken although readiness is gone.
            at_once: set to wait no longer.
        """
        at_once = at_once or asyncio.Event()
        began_s = asyncio.get_running_loop().time()
        self._control.leaving = self._leaving = True
        for connection in self.connections:
            connection.reader.last = True
        await _until(lambda: False, began_s + min(delay_s, drain_s), at_once)
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.drain()
        await _until(lambda: not self.connections, began_s + drain_s, at_once)
        for pool in list(self._pools.values()):
            pool.close()  # streams are told why they end
        await _until(
            lambda: not self.connections,
            asyncio.get_running_loop().time() + _LAST_WORDS_S,
            asyncio.Event(),
        )
        for connection in list(self.connections):
            connection.abort()
        await cancel(self._sweeper)


def _most_connections() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return sys.maxsize
    return max((files - _OTHER_FILES) // 2, _SPARE_CONNECTIONS)


async def _until(done: Callable[[], bool], at_s: float, at_once: asyncio.Event) -> None:
    """Wait for `done`, for the time or for the event, whichever is first."""
    loop = asyncio.get_running_loop()
    while not done() and not at_once.is_set() and loop.time() < at_s:
        await asyncio.sleep(0.02)
