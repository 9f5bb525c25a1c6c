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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lodestar_router.config import Config
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import EngineId
from lodestar_router.describe import describe_engine, gauge_rows
from lodestar_router.discovery.base import Discovered
from lodestar_router.discovery.discovery import Discovery
from lodestar_router.discovery.sources import sources_of
from lodestar_router.engine_parts import EngineParts
from lodestar_router.engine_set import EngineSet
from lodestar_router.engines.api import EngineApi
from lodestar_router.engines.watch import EngineWatch
from lodestar_router.errors import ConfigError
from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.serving import PublishedModel
from lodestar_router.feedback import RouterFeedback
from lodestar_router.learning.checkpoint import CheckpointError, load
from lodestar_router.model_identity import ModelIdentity
from lodestar_router.policy.staged import learned_in
from lodestar_router.proxy.client_connection import Limits
from lodestar_router.proxy.control import ControlHandler
from lodestar_router.proxy.dispatcher import Dispatcher
from lodestar_router.proxy.engine_pool import EnginePool
from lodestar_router.proxy.forwarder import Forwarder
from lodestar_router.proxy.handler import RouteHandler
from lodestar_router.proxy.metrics import GaugeRow, Metrics
from lodestar_router.proxy.server import Server
from lodestar_router.resilience import circuits_of, retries_of
from lodestar_router.steering import make_policy
from lodestar_router.tokenizers import Tokenizers
from lodestar_router.trainer.link import TrainerLink, trainer_command

_logger = logging.getLogger(__name__)

_FIRST_PROBES_S = 3.0  # then the router serves with the engines that have answered


class Router:
    """One router process."""

    def __init__(self, config: Config) -> None:
        self._config = config
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
            on_hang=self._engine_hangs,
        )
        self.policy = make_policy(config)
        self.learned = learned_in(self.policy)
        self.trainer = self._make_trainer()
        self.metrics = Metrics()
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
        self.fleet.complete = False

    @property
    def watches(self) -> dict[EngineId, EngineWatch]:
        """The watch of every engine."""
        return self.engines.watches

    def _make_trainer(self) -> TrainerLink | None:
        policy = self.learned
        if policy is None:
            return None
        model = _saved_model(self._config.state_dir)
        policy.swap(model)
        if not self._config.trainer:
            return None
        command = trainer_command(self._config.state_dir, self._config.seed or 0)
        return TrainerLink(policy.swap, command=command, model=model)

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
        await self._first_probes()
        port = await server.start(config.host, config.port)
        self._server = server
        if self.trainer is not None:
            self.trainer.start()
        return port

    async def _apply_engines(self, told: Sequence[Discovered]) -> None:
        await self.engines.apply(told)
        self.fleet.complete = self.discovery.synced

    def _engine_hangs(self, pool: EnginePool) -> None:
        engine_id = pool.spec.engine_id
        reason = f"no token for {self._config.hang_timeout_s:g} s while streams wait"
        _logger.warning("engine %s: %s", engine_id, reason)
        if self.engines.pools.get(engine_id) is not pool:  # it left; these were its last
            pool.give_up_waiting(reason)
            return
        self.fleet[engine_id].circuit.trip(reason, self._clock())
        self.metrics.engine_failed(engine_id, "hang")
        self.engines.kick(engine_id)

    def _api_serving(self, model: str) -> EngineApi | None:
        """An engine that is up and serves the model."""
        for state in self.fleet:
            if state.up and state.serves(model):
                return self.watches[state.spec.engine_id].api
        return None

    def _make_server(self) -> Server:
        config = self._config
        feedback = RouterFeedback(
            self._tracker,
            self._offer,
            clock=self._clock,
            decoding=None if self.learned is None else self.learned.decoding,
        )
        self.metrics.add_gauges(self._gauges)
        dispatcher = Dispatcher(
            fleet=self.fleet,
            index=self.index,
            policy=self.policy,
            forwarder=Forwarder(
                pools=self.engines.pools,
                engine_keys=self.parts.keys,
                on_unreachable=lambda engine, why: self.fleet.mark_down(engine, why, self._clock()),
                on_trouble=self.engines.kick,
                resend=config.resend_unanswered,
            ),
            timeouts=self.parts.timeouts,
            retries=retries_of(config, self.metrics),
            feedback=feedback,
            metrics=self.metrics,
            clock=self._clock,
        )
        return Server(
            routes=RouteHandler(
                fleet=self.fleet,
                tokens=self.tokenizers.service,
                dispatcher=dispatcher,
                metrics=self.metrics,
                clock=self._clock,
                goal=config.goal,
            ),
            control=ControlHandler(
                fleet=self.fleet,
                metrics=self.metrics,
                engines=self.describe_engines,
                config=config.effective(),
                decisions=feedback.log,
            ),
            pools=self.engines.pools,
            limits=Limits(body_bytes=config.max_body_bytes),
        )

    def _offer(self, row: TrainingRow) -> None:
        if self.trainer is not None:
            self.trainer.offer(row)

    async def _first_probes(self) -> None:
        """Give every engine the chance to answer once.

        Raises:
            ConfigError: engines that the operator named contradict each other.
        """
        try:
            async with asyncio.timeout(_FIRST_PROBES_S):
                await self.discovery.applied.wait()
                await asyncio.gather(*(watch.probed.wait() for watch in self._awaited()))
        except TimeoutError:
            _logger.warning("not all engines have answered yet; serving with those that have")
        named = {spec.engine_id for spec in self._config.engines}
        for engine_id, conflict in self._identity.conflicts.items():
            if engine_id in named:
                raise ConfigError(conflict)

    def _awaited(self) -> list[EngineWatch]:
        """Watches of the engines that may take requests as soon as they have answered."""
        return [watch for engine, watch in self.watches.items() if not self.fleet[engine].holds]

    def describe_engines(self) -> list[dict[str, Any]]:
        """For GET /engines."""
        now_s = self._clock()
        return [
            describe_engine(state, self.fleet, self.index, self.watches, now_s)
            for state in self.fleet
        ]

    def _gauges(self) -> Iterable[GaugeRow]:
        return gauge_rows(self.fleet, self.index, self.trainer, self.served_model, self._clock())

    @property
    def engine_ids(self) -> list[EngineId]:
        """The engines, in the order they were named."""
        return [state.spec.engine_id for state in self.fleet]

    @property
    def served_model(self) -> PublishedModel | None:
        """The model that choices use now, if the policy has one."""
        return None if self.learned is None else self.learned.model

    async def stop(self, drain_s: float) -> None:
        """End everything that `start` began; safe after a start that failed."""
        server = getattr(self, "_server", None)
        if server is not None:
            await server.stop(drain_s)
        await self.discovery.stop()
        await self.engines.stop()
        if self.trainer is not None:
            await self.trainer.stop()
        await self.tokenizers.close()
        await self.parts.close()


def _saved_model(state_dir: Path | None) -> PublishedModel | None:
    """The model of the last run; a checkpoint that cannot be used is no reason not to start."""
    if state_dir is None:
        return None
    try:
        return load(state_dir)
    except CheckpointError as error:
        _logger.warning("starting without the saved model: %s", error)
        return None
