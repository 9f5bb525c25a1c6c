"""What the router needs of its own for one engine, made from the settings in force."""

from collections.abc import Callable, Sequence

import aiohttp
import zmq.asyncio

from lodestar_router.config import Config
from lodestar_router.core.fleet import Fleet, ModelCard
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import EngineId, EngineSpec
from lodestar_router.engines.api import EngineApi
from lodestar_router.engines.feeds import EngineFeeds
from lodestar_router.engines.watch import EngineWatch, ModelCheck
from lodestar_router.engines.watch_settings import WatchSettings
from lodestar_router.proxy.engine_pool import EnginePool
from lodestar_router.proxy.read_pace import ReadPace
from lodestar_router.resilience import timeouts_of
from lodestar_router.tls import engine_tls


class EngineParts:
    """Makes clients, pools and watches.

    Args:
        check, on_up: as EngineWatch takes them.
        on_hang: called with the pool of an engine that takes requests and says nothing,
            and for how many seconds.
    """

    def __init__(
        self,
        config: Config,
        *,
        fleet: Fleet,
        index: PrefixIndex,
        clock: Callable[[], float],
        check: ModelCheck,
        on_up: Callable[[EngineId, Sequence[ModelCard]], None],
        on_hang: Callable[[EnginePool, float], None],
    ) -> None:
        self.config = config  # another one takes effect with what is made next
        self.timeouts = timeouts_of(config)
        self.keys: dict[EngineId, str] = {}  # sent to engines with requests that bear none
        self._fleet = fleet
        self._index = index
        self._clock = clock
        self._check = check
        self._on_up = on_up
        self._on_hang = on_hang
        self._pace = ReadPace()

    def open(self) -> None:
        """Make what engines share; needs a running loop."""
        self._context = zmq.asyncio.Context()
        self._tls = engine_tls(self.config)
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls)
        self._session = aiohttp.ClientSession(connector=connector)

    async def close(self) -> None:
        """Close what engines share."""
        await self._session.close()
        self._context.destroy(linger=0)

    def api(self, spec: EngineSpec) -> EngineApi:
        """The client for the router's own calls."""
        key = self.config.api_keys.get(spec.engine_id, self.config.api_key)
        if key is None:
            self.keys.pop(spec.engine_id, None)
        else:
            self.keys[spec.engine_id] = key
        return EngineApi(spec, self._session, key=key or self.config.probe_key)

    def pool(self, spec: EngineSpec) -> EnginePool:
        """The connections for clients' requests."""
        hang_s = self.config.hang_timeout_s
        pool = EnginePool(
            spec,
            self.timeouts,
            tls=self._tls,
            hang_s=hang_s,
            on_hang=lambda: self._on_hang(pool, hang_s),
            pace=self._pace,
        )
        return pool

    def watch(self, api: EngineApi, pool: EnginePool) -> EngineWatch:
        """The watch, with the event streams it keeps."""
        return EngineWatch(
            api,
            EngineFeeds(
                api.spec,
                fleet=self._fleet,
                index=self._index,
                context=self._context,
                clock=self._clock,
                kv_events=self.config.kv_events,
            ),
            fleet=self._fleet,
            index=self._index,
            settings=WatchSettings(
                metrics_interval_s=self.config.metrics_interval_s,
                probe_timeout_s=self.config.probe_timeout_s,
            ),
            clock=self._clock,
            check=self._check,
            on_up=self._on_up,
            heard_at_s=lambda: pool.heard_at_s,
            on_silent=pool.give_up_waiting,
        )
