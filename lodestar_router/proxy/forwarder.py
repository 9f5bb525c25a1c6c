"""One request to one engine: a connection, the request's bytes, the answer's way back.

A connection that was kept alive may be closed by the engine in the instant it
is used again, and nobody can tell whether the engine had begun the request. It
then counts as begun, unless `resend` says that computing a request twice is no
harm: then the same engine gets it once more, on a new connection.
"""

from collections.abc import Callable, Mapping, Sequence

from lodestar_router.core.types import EngineId, RoutedRequest
from lodestar_router.errors import (
    DeadlineError,
    EngineError,
    EngineRefusedError,
    EngineUnreachableError,
    StaleConnectionError,
)
from lodestar_router.proxy.deadlines import Patience
from lodestar_router.proxy.engine_connection import EngineConnection
from lodestar_router.proxy.engine_pool import EnginePool
from lodestar_router.proxy.exchange import Answer, ExchangeObserver, Sink
from lodestar_router.proxy.messages import Request, engine_request


class Forwarder:
    """Holds the connections to all engines.

    Args:
        on_unreachable: an engine refused a connection.
        on_trouble: an engine failed in any way; worth a look.
    """

    def __init__(
        self,
        *,
        pools: Mapping[EngineId, EnginePool],
        engine_keys: Mapping[EngineId, str],
        on_unreachable: Callable[[EngineId, str], None],
        on_trouble: Callable[[EngineId], None],
        resend: bool,
    ) -> None:
        self._pools = pools
        self._engine_keys = engine_keys
        self._on_unreachable = on_unreachable
        self._on_trouble = on_trouble
        self._resend = resend

    async def forward(
        self,
        engine_id: EngineId,
        routed: RoutedRequest,
        request: Request,
        client: Sink,
        patience: Patience,
        observer: ExchangeObserver,
    ) -> Answer:
        """Relay the engine's answer to the client.

        Raises:
            EngineError: nothing has gone to the client.
            BrokenAnswerError: something has.
        """
        pool = self._pools[engine_id]
        wire = engine_request(
            request,
            host=pool.host,
            path_prefix=pool.path_prefix,
            extra=self._extra_headers(engine_id, routed, request),
        )
        connection = pool.take_idle()
        while True:
            if connection is None:
                connection = await self._connect(pool, engine_id, patience)
            try:
                return await self._carry(
                    pool, connection, wire, routed, request, client, patience, observer
                )
            except StaleConnectionError:
                if not self._resend:
                    raise
                connection = None
            except (DeadlineError, EngineRefusedError):
                raise  # nothing is wrong with the engine
            except EngineError:
                self._on_trouble(engine_id)
                raise

    async def _connect(
        self, pool: EnginePool, engine_id: EngineId, patience: Patience
    ) -> EngineConnection:
        try:
            return await pool.connect(patience.ends_at_s)
        except EngineUnreachableError as error:
            # Refused: nobody listens. A timeout may be a full backlog, for the watch to judge.
            if isinstance(error.__cause__, OSError) and not isinstance(
                error.__cause__, TimeoutError
            ):
                self._on_unreachable(engine_id, f"{pool.spec.url}: {error.__cause__}")
            self._on_trouble(engine_id)
            raise

    async def _carry(
        self,
        pool: EnginePool,
        connection: EngineConnection,
        wire: Sequence[bytes],
        routed: RoutedRequest,
        request: Request,
        client: Sink,
        patience: Patience,
        observer: ExchangeObserver,
    ) -> Answer:
        try:
            done = connection.start(
                wire,
                client,
                observer,
                patience,
                scan=routed.stream,
                http_1_0=request.http_1_0,
                keep_alive=request.keep_alive,
            )
            client.relay_from(connection)
            return await done
        finally:
            connection.cancel()  # does nothing once the exchange has ended
            pool.give_back(connection)

    def _extra_headers(
        self, engine_id: EngineId, routed: RoutedRequest, request: Request
    ) -> list[bytes]:
        lines = [b"x-request-id: " + routed.request_id.encode("latin-1")]
        key = self._engine_keys.get(engine_id)
        if key and request.header(b"authorization") is None:
            lines.append(b"authorization: Bearer " + key.encode())
        return lines
