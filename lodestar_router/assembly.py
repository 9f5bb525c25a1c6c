"""Config in, a running router out: every object is made and wired here.

    start   find the engines, probe each of them once, listen
    run     until told to stop
    stop    drain clients, end watches and trainer

An engine that is down at start is shown as down and probed on; named engines that
contradict each other stop the start, while there is somebody to read why.
"""

import asyncio
import logging
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lodestar_router.accounting import Statistics, providers_of, session_key_of
from lodestar_router.config import Config
from lodestar_router.config.live import changed, taken_over
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import EngineId
from lodestar_router.describe import describe_engines, describe_health, gauge_rows
from lodestar_router.describe_model import learned_rows
from lodestar_router.disaggregation import with_legs
from lodestar_router.discovery.base import Discovered
from lodestar_router.discovery.discovery import Discovery
from lodestar_router.discovery.sources import sources_of
from lodestar_router.dispatching import make_dispatcher
from lodestar_router.engine_parts import EngineParts
from lodestar_router.engine_set import EngineSet
from lodestar_router.engines.api import EngineApi
from lodestar_router.engines.health_checks import HealthChecks
from lodestar_router.engines.watch import EngineWatch
from lodestar_router.errors import ConfigError
from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.feedback import RouterFeedback
from lodestar_router.logs import severity
from lodestar_router.model_identity import ModelIdentity
from lodestar_router.proxy.admission import Admission
from lodestar_router.proxy.client_keys import ClientKeys
from lodestar_router.proxy.control import ControlHandler
from lodestar_router.proxy.handler import RouteHandler
from lodestar_router.proxy.loop_lag import LoopLag
from lodestar_router.proxy.metrics import GaugeRow, Metrics
from lodestar_router.proxy.server import Server
from lodestar_router.reload import Reloader
from lodestar_router.resilience import admission_of, circuits_of, limits_of
from lodestar_router.services import Services
from lodestar_router.static_checks import checks_of
from lodestar_router.steering import Steering, steers
from lodestar_router.tasks import cancel, spawn
from lodestar_router.tls import client_tls, load_own
from lodestar_router.tokenizers import Tokenizers

_logger = logging.getLogger(__name__)


class Router:
    """One router process."""

    def __init__(self, config: Config, read: Callable[[], Config] | None = None) -> None:
        """Wire everything.

        Args:
            read: reads the settings anew, for reload().
        """
        self._config = config
        self._reloader = Reloader(
            read or (lambda: self._config), self.reconfigure, said=config.warnings
        )
        self._background: list[asyncio.Task[None]] = []
        self._clock = time.monotonic
        self._tracker = ResidualTracker()
        self.index = PrefixIndex()
        self.fleet = Fleet(
            prefix_view=self.index.kind,
            log_residual=self._tracker.value,
            circuits=circuits_of(config),
        )
        self._identity = ModelIdentity(self.fleet, allow_mixed=config.allow_mixed_models)
        self.parts = EngineParts(
            config,
            fleet=self.fleet,
            index=self.index,
            clock=self._clock,
            check=self._identity.check,
            on_up=lambda engine_id, cards: self.tokenizers.engine_up(engine_id, cards),
            on_hang=lambda pool, for_s: self.engines.hangs(pool, for_s, self._clock()),
        )
        self.steering = Steering(config, self._tracker)
        self.metrics = Metrics(window_s=config.request_stats_window_s)
        self._statistics = Statistics(self.fleet, self.metrics, self._clock, self.steering)
        self._tls = client_tls(config)
        self.client_keys = ClientKeys(self.metrics, config.client_keys)
        self.engines = EngineSet(
            fleet=self.fleet,
            index=self.index,
            tracker=self._tracker,
            identity=self._identity,
            metrics=self.metrics,
            make_api=self.parts.api,
            make_watch=self.parts.watch,
            make_pool=self.parts.pool,
        )
        self.discovery = Discovery(self._apply_engines)
        self._checks = HealthChecks(self.watches.get)
        self._services = Services(config, self.fleet, self.watches, self.metrics)
        self.fleet.complete = False

    @property
    def watches(self) -> dict[EngineId, EngineWatch]:
        """The watch of every engine."""
        return self.engines.watches

    async def start(self) -> int:
        """Begin to serve; returns the port.

        Raises:
            ConfigError: the address is taken, a tokenizer cannot be loaded, or
                engines contradict each other.
        """
        config = self._config
        self.parts.open()
        self.tokenizers = Tokenizers(config.tokenizer_of, self._api_serving)
        await self.tokenizers.load_configured(config.tokenizers)
        await self.discovery.use(sources_of(config))
        server = self._make_server()
        await self._services.open(self._routes)
        named = [spec.engine_id for spec in config.engines]
        await self.engines.first_probes(self.discovery.applied, named)
        port = await server.start(config.host, config.port)
        self._server = server
        self.steering.start()
        await self._checks.use(checks_of(config))
        await self._services.start()
        self._background = [
            spawn(self._lag.watch(), name="loop lag"),
            spawn(self._statistics.log(config), name="statistics"),
            *(
                spawn(self._reloader.follow(path), name=f"following {path}")
                for path in (config.dynamic_config, config.client_keys_file)
                if path is not None
            ),
        ]
        return port

    async def reload(self) -> bool:
        """Read all settings anew and take over what can change; False if nothing could."""
        return await self._reloader.reload()

    async def reconfigure(self, read: Config) -> tuple[str, ...]:
        """Take over what can change while running; returns the names of what else differs.

        Engines, views, counts, streams and the learned model stay.

        Raises:
            ConfigError: it cannot be done; everything is as before.
        """
        before = self._config
        if self._tls is not None and before.tls_cert is not None:
            load_own(self._tls, before.tls_cert, before.tls_key)
        config, waiting = taken_over(before, read)
        self.parts.config = config
        try:
            await self.discovery.use(sources_of(config))
        except ConfigError:
            self.parts.config = before
            raise
        self._config = config
        await self._checks.use(checks_of(config))
        changes = changed(before, config)
        if steers(changes):
            self.steering.change(config)
            self._dispatcher.policy = self.steering.policy
            self._feedback.decoding = self.steering.decoding
            self._feedback.trust = self.steering.trust
        self._routes.aliases = config.static_aliases
        self._routes.session_key = session_key_of(config)
        self._routes.dispatcher = with_legs(config, self._dispatcher)
        self.client_keys.use(config.client_keys)
        if "log-level" in changes:
            logging.getLogger().setLevel(severity(config.log_level))
        if changes:
            _logger.info("configuration changed: %s", ", ".join(changes))
        return waiting

    async def _apply_engines(self, told: Sequence[Discovered]) -> None:
        await self.engines.apply(told)
        self.fleet.complete = self.discovery.synced

    def _api_serving(self, model: str) -> EngineApi | None:
        """An engine that is up and serves the model."""
        for state in self.fleet:
            if state.up and state.serves(model):
                return self.watches[state.spec.engine_id].api
        return None

    def _make_server(self) -> Server:
        config = self._config
        feedback = self._feedback = RouterFeedback(
            self._tracker,
            self.steering.offer,
            clock=self._clock,
            decoding=self.steering.decoding,
            trust=self.steering.trust,
        )
        self.metrics.add_gauges(self._gauges)
        self.metrics.add_gauges(self._statistics.rows)
        self._dispatcher = make_dispatcher(
            config,
            self.steering.policy,
            feedback,
            fleet=self.fleet,
            index=self.index,
            parts=self.parts,
            engines=self.engines,
            metrics=self.metrics,
            clock=self._clock,
        )
        providers = providers_of(config, self.metrics)
        self._lag = LoopLag(config.max_loop_lag_s, metrics=self.metrics, clock=self._clock)
        self._routes = RouteHandler(
            admission=Admission(admission_of(config), metrics=self.metrics, clock=self._clock),
            lag=self._lag,
            json_depth=config.max_json_depth,
            fleet=self.fleet,
            tokens=self.tokenizers.service,
            dispatcher=with_legs(config, self._dispatcher),
            metrics=self.metrics,
            clock=self._clock,
            goal=config.goal,
            aliases=config.static_aliases,
            session_key=session_key_of(config),
            providers=providers,
        )
        return Server(
            routes=self._routes,
            control=ControlHandler(
                fleet=self.fleet,
                metrics=self.metrics,
                engines=self.describe_engines,
                config=lambda: self._config.effective(),
                decisions=feedback.log,
                health=lambda: describe_health(
                    self._config, self._reloader.error, engines_known=not self.discovery.failed
                ),
                other_models=providers.cards,
            ),
            services=self._services.handlers,
            pools=ChainMap(self.engines.pools, providers.pools),
            limits=limits_of(config),
            keys=self.client_keys,
            tls=self._tls,
            root_path=config.root_path,
        )

    def describe_engines(self) -> list[dict[str, Any]]:
        """For GET /engines."""
        return describe_engines(self.fleet, self.index, self.watches, self._clock())

    def _gauges(self) -> Iterable[GaugeRow]:
        now_s = self._clock()
        yield from gauge_rows(self.fleet, self.index, now_s)
        yield from learned_rows(self.steering)
        yield from self.discovery.gauges()
        yield from self._reloader.gauges()

    @property
    def engine_ids(self) -> list[EngineId]:
        """The engines, in the order they were named."""
        return [state.spec.engine_id for state in self.fleet]

    async def stop(
        self, drain_s: float, *, delay_s: float = 0.0, at_once: asyncio.Event | None = None
    ) -> None:
        """End everything that `start` began, as Server.stop; safe after a start that failed."""
        await self._services.pause()
        server = getattr(self, "_server", None)
        if server is not None:
            await server.stop(drain_s, delay_s=delay_s, at_once=at_once)
        await self._services.close()
        await cancel(*self._background)
        await self._checks.stop()
        await self.discovery.stop()
        await self.engines.stop()
        await self.steering.stop()
        await self.tokenizers.close()
        await self.parts.close()
