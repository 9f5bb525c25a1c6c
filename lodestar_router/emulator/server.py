"""One emulated engine as a server: vLLM's HTTP API, KV events and scheduler stats.

    start   bind every port, then serve
    stop    end all requests and close every port; the engine can be started again,
            on the same ports and with nothing cached, as after a restart

In       ServerSettings; a Language, which engines of a process share.
Out      ServerPorts; whatever the API answers.
Cost     16 engines in one process, 20 requests/s of 1,500 prompt and 150 answer
         tokens, streamed: a fifth of a core; idle, about 1 %.
Errors   ConfigError from start: a port is taken, or the engine cannot exist.

One event loop serves any number of engines; they share tokenizers.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import zmq
from aiohttp import web

from lodestar_router.emulator.build import build_engine
from lodestar_router.emulator.http_api import HttpApi
from lodestar_router.emulator.kv_transfer import PrefillSide, side_of
from lodestar_router.emulator.profiles import load_profile
from lodestar_router.emulator.server_engine import RealTimeEngine
from lodestar_router.emulator.server_kv import KvPublisher
from lodestar_router.emulator.server_language import Language
from lodestar_router.emulator.server_metrics import EngineMetrics
from lodestar_router.emulator.server_settings import ServerPorts, ServerSettings
from lodestar_router.emulator.server_stats import StatsPublisher
from lodestar_router.errors import ConfigError
from lodestar_router.tasks import cancel, spawn

_SHUTDOWN_S = 0.1  # answers still going on are cut, as when an engine is killed


class EmulatedServer:
    """Serves one engine from start() to stop()."""

    def __init__(
        self,
        settings: ServerSettings,
        language: Language,
        *,
        context: "zmq.Context[Any]",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._language = language
        self._context = context
        self._clock = clock
        self._closers: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The base URL; known once started."""
        host = self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.ports.http}"

    async def start(self) -> ServerPorts:
        """Serve; returns the ports.

        Raises:
            ConfigError: a port is taken, or the settings describe no engine.
        """
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> ServerPorts:
        settings = self.settings
        if settings.speed <= 0.0:
            raise ConfigError("speed must be above 0")
        # A fast engine is one whose steps are short: every time it reports then
        # is the time a client measures.
        described = replace(settings.engine, slowdown=settings.engine.slowdown / settings.speed)
        model = build_engine(described)
        config = model.config
        name = settings.served_model or settings.engine.model
        metrics = EngineMetrics(
            name,
            {
                "block_size": config.block_size_tokens,
                "cache_dtype": "auto",
                "enable_prefix_caching": config.prefix_caching,
                "num_gpu_blocks": config.num_blocks,
                "sliding_window": None,
            },
            max_model_len=config.max_model_len,
            started_at_s=time.time_ns() / 1e9,
        )
        stats = StatsPublisher(
            self._context,
            host=settings.host,
            port=settings.scheduler_stats_port,
            clock=self._clock,
        )
        self._closers.append(stats.close)
        kv = self._kv_publisher() if config.kv_events and config.prefix_caching else None
        self.kv = kv
        engine = RealTimeEngine(model, [metrics, stats, *([kv] if kv else [])], clock=self._clock)
        self.engine = engine
        self.kv_side = side_of(settings.kv_transfer, self._transfer_s_per_token(), self._clock)
        api = HttpApi(
            engine,
            self._language,
            kv_side=self.kv_side,
            model=name,
            metrics=metrics,
            kv_sources=kv.sources if kv else dict,
        )
        port = await self._listen(api)
        if isinstance(self.kv_side, PrefillSide):
            self.kv_side.port = port
        for coroutine in (engine.run(), stats.run(), *([kv.run()] if kv else [])):
            self._tasks.append(spawn(coroutine, name=f"emulated engine on port {port}"))
        self.ports = ServerPorts(
            http=port,
            kv_events=kv.port if kv else None,
            kv_replay=kv.replay_port if kv else None,
            scheduler_stats=stats.port,
        )
        self.settings = settings.at(self.ports)
        return self.ports

    def _transfer_s_per_token(self) -> float:
        settings = self.settings
        if settings.kv_transfer is None:
            return 0.0
        bytes_per_s = settings.kv_transfer.gbytes_per_s * 1e9 * settings.speed
        profile = load_profile(settings.engine.gpu, settings.engine.model)
        return profile.kv_bytes_per_token / bytes_per_s

    def _kv_publisher(self) -> KvPublisher:
        settings = self.settings
        kv = KvPublisher(
            self._context,
            host=settings.host,
            port=settings.kv_events_port,
            replay_port=settings.kv_replay_port,
            topic=settings.kv_topic,
        )
        self._closers.append(kv.close)
        return kv

    async def _listen(self, api: HttpApi) -> int:
        settings = self.settings
        # handler_cancellation: a client that leaves ends its request here too.
        self._runner = web.AppRunner(
            api.application(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_S,
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, settings.host, settings.port).start()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
            ) from error
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """End requests, close ports; safe after a start that failed."""
        await cancel(*self._tasks)
        if self._runner is not None:
            await self._runner.cleanup()
        for close in self._closers:
            close()
        self._tasks, self._closers, self._runner = [], [], None
