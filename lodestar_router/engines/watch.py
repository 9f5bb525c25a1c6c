"""Keeps the fleet's view of one engine true: is it up, what it serves, how loaded it is.

    down ─/v1/models answers─► up ─refused, or silent for down_after_s─► down

In       the engine's HTTP endpoints, polled; its KV events and scheduler stats, subscribed.
Out      marks in the Fleet, capacity and events in the PrefixIndex.
Cost     one small request per interval; each engine has its own task, so a slow
         one delays nobody.
Errors   none leave run(): trouble with an engine becomes the reason it is shown down.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from lodestar_router.core.fleet import Fleet, ModelCard
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import EngineId, EngineLoad
from lodestar_router.engines.api import EngineApi, NoEndpointError
from lodestar_router.engines.feeds import EngineFeeds
from lodestar_router.engines.metrics_text import MetricsReport, parse_metrics, to_load
from lodestar_router.engines.served_models import ServedModels
from lodestar_router.engines.watch_settings import WatchSettings
from lodestar_router.errors import EngineError, EngineTimeoutError

_logger = logging.getLogger(__name__)

PROBE_BACKOFF_S = (0.25, 0.5, 1.0, 2.0)  # an engine loads its model for a minute or more
SLEEP = "sleep"  # who holds an engine that sleeps
_STATS_FRESH_S = 1.0  # the plugin sends a heartbeat several times a second

ModelCheck = Callable[[EngineId, Sequence[ModelCard]], str | None]


class EngineWatch:
    """Watches one engine until cancelled.

    Args:
        check: says why the engine may not be used with these models; None if it may.
        on_up: called with the cards whenever they were read.
        heard_at_s: when an answer of the engine last went on, by `clock`; one that
            answers requests is up, however late it is with its metrics.
        on_silent: called when the engine is down for want of any answer: requests
            that wait there will not be answered, though their connections are open.
    """

    def __init__(
        self,
        api: EngineApi,
        feeds: EngineFeeds,
        *,
        fleet: Fleet,
        index: PrefixIndex,
        settings: WatchSettings,
        clock: Callable[[], float],
        check: ModelCheck,
        on_up: Callable[[EngineId, Sequence[ModelCard]], None] = lambda _engine, _cards: None,
        heard_at_s: Callable[[], float] = lambda: -inf,
        on_silent: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self.api = api
        self._id = api.spec.engine_id
        self.feeds = feeds
        self._fleet = fleet
        self._index = index
        self._settings = settings
        self._clock = clock
        self._check = check
        self._on_up = on_up
        self._heard_at_s = heard_at_s
        self._on_silent = on_silent
        self._has_health = True  # until it answers that it knows no such endpoint
        self._health_due = False
        self._wake = asyncio.Event()
        self._probe_due = False
        self._feeds_due = False
        self._start_time_s: float | None = None
        self._can_sleep = True  # until it shows that it has no sleep mode
        self.said_asleep = False  # somebody else says that it sleeps; its own word counts more
        self._served = ServedModels()
        self.probed = asyncio.Event()  # set once the first probe has ended, well or not
        self.metrics_errors = 0

    def kick(self) -> None:
        """A request had trouble with the engine: look at once."""
        self._health_due = True
        self._wake.set()

    def refresh(self) -> None:
        """What the engine serves may have changed: ask at once."""
        self._probe_due = True
        self._wake.set()

    def judge(self, model: str, trouble: str) -> None:
        """A model on this engine works, or does not: then nothing is sent to it here."""
        if not trouble:
            if self._served.unhealthy.pop(model, ""):
                self.refresh()
            return
        self._served.unhealthy[model] = trouble
        self._fleet.withdraw(self._id, model)

    def reconfigure(self, api: EngineApi) -> None:
        """The same engine has other feeds or another key."""
        self.api = api
        self.feeds.spec = api.spec
        self._feeds_due = True
        self.refresh()

    async def run(self) -> None:
        """Probe, then poll while the engine is up, forever."""
        failures = 0
        try:
            while True:
                try:
                    await self._probe()
                except EngineError as error:
                    self._down(str(error))
                    delay_s = PROBE_BACKOFF_S[min(failures, len(PROBE_BACKOFF_S) - 1)]
                    failures += 1
                    await self._pause(delay_s)
                    continue
                finally:
                    self.probed.set()
                failures = 0
                await self._poll_until_down()
        finally:
            await self.feeds.stop()

    async def _probe(self) -> None:
        """Read what the engine serves and mark it up.

        Raises:
            EngineError: it cannot take requests.
        """
        self._probe_due = False  # before the first await: what changes from here on is a new one
        timeout_s = self._settings.probe_timeout_s
        state = self._fleet[self._id]
        await self._look_healthy(timeout_s)
        cards = await self._served.read(self.api, state.spec.models, timeout_s)
        was_up = state.up
        if not was_up:
            state.version = await self.api.version(timeout_s)
            self._can_sleep = self._has_health = True  # it may be another one
        if not was_up or self._feeds_due:
            self._feeds_due = False
            await self.feeds.start(self.api)
        await self._look_asleep(timeout_s)
        # Checked with no await before the mark: of two engines probed at once that
        # contradict each other, the second must see the first.
        conflict = self._check(self._id, cards)
        if conflict is not None:
            raise EngineError(conflict)
        self._fleet.mark_up(self._id, cards, self._clock())
        self._on_up(self._id, cards)
        if not was_up:
            _logger.info("engine %s is up: %s", self._id, [card["id"] for card in cards])
            await self._read_metrics()

    async def _look_healthy(self, timeout_s: float) -> None:
        """Ask /health, where there is one.

        Raises:
            EngineError: it is not healthy.
        """
        self._health_due = False
        if self._has_health:
            self._has_health = await self.api.healthy(timeout_s)

    async def look_asleep(self) -> None:
        """Ask now whether the engine sleeps."""
        self._can_sleep = True
        await self._look_asleep(self._settings.probe_timeout_s)

    async def _look_asleep(self, timeout_s: float) -> None:
        """Hold the engine while it sleeps: a request would wait until somebody wakes it."""
        try:
            answer = await self.api.is_sleeping(timeout_s) if self._can_sleep else None
        except EngineError:
            return  # it may have either answer: leave it as it is
        self._can_sleep = answer is not None
        if self.said_asleep if answer is None else answer:
            self._fleet.hold(self._id, SLEEP, "sleeping")
        else:
            self._fleet.release(self._id, SLEEP)

    async def _poll_until_down(self) -> None:
        settings = self._settings
        answered_at_s = self._clock()
        models_at_s = health_at_s = answered_at_s
        timeouts = 0
        while self._fleet[self._id].up:
            await self._pause(settings.metrics_interval_s)
            try:
                if self._probe_due:
                    models_at_s = -inf  # until a probe succeeds
                now_s = self._clock()
                if not timeouts:  # a silent engine is asked the cheapest question only
                    if now_s - models_at_s > settings.models_every_s:
                        await self._probe()
                        models_at_s = health_at_s = self._clock()
                    if self._health_due or now_s - health_at_s > settings.health_every_s:
                        await self._look_healthy(settings.metrics_timeout_s)
                        health_at_s = self._clock()
                await self._read_metrics()
                answered_at_s, timeouts = self._clock(), 0
            except EngineTimeoutError as error:
                timeouts += 1
                silent_s = self._clock() - max(answered_at_s, self._heard_at_s())
                if timeouts >= settings.down_after_timeouts and silent_s > settings.down_after_s:
                    self._down(str(error))
                    self._on_silent("the engine stopped answering")
            except EngineError as error:
                self._down(str(error))

    async def _read_metrics(self) -> None:
        """Poll /metrics once.

        Raises:
            EngineError: the engine did not answer. No such page, one without vLLM's
                metrics or that cannot be read is counted, and nothing follows from it.
        """
        try:
            page = await self.api.metrics(self._settings.metrics_timeout_s)
        except NoEndpointError:
            self.metrics_errors += 1
            return
        try:
            report = parse_metrics(page)
        except EngineError:
            self.metrics_errors += 1
            return
        self._note_restart(report)
        self._note_capacity(report)
        load = to_load(report, self._clock())
        if load is not None:
            self._observe(load)

    def _observe(self, load: EngineLoad) -> None:
        """A poll is older than it looks; it gives way to stats that are fresh."""
        current = self._fleet[self._id].load
        if (
            current is not None
            and current.source != load.source
            and load.observed_at_s - current.observed_at_s < _STATS_FRESH_S
        ):
            return
        self._fleet.observe_load(self._id, load)

    def _note_restart(self, report: MetricsReport) -> None:
        if report.process_start_time_s is None:
            return
        if self._start_time_s not in (None, report.process_start_time_s):
            _logger.info("engine %s was restarted", self._id)
            self.feeds.engine_restarted()
            self._index.engine_restarted(self._id)
        self._start_time_s = report.process_start_time_s

    def _note_capacity(self, report: MetricsReport) -> None:
        state = self._fleet[self._id]
        state.cache_tokens = report.cache_tokens
        if (report.kv_blocks, report.block_size_tokens) == (
            state.kv_blocks,
            state.block_size_tokens,
        ):
            return
        state.kv_blocks, state.block_size_tokens = report.kv_blocks, report.block_size_tokens
        self._index.set_capacity(
            self._id,
            report.kv_blocks,
            report.block_size_tokens,
            prefix_caching=report.prefix_caching is not False,
        )

    def _down(self, reason: str) -> None:
        if self._fleet[self._id].up:
            _logger.warning("engine %s is down: %s", self._id, reason)
        self._fleet.mark_down(self._id, reason, self._clock())

    async def _pause(self, delay_s: float) -> None:
        """Sleep, or less if kicked."""
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def describe(self) -> dict[str, Any]:
        """For /engines: the feeds and the trouble with them."""
        return {
            **self.feeds.describe(),
            "metrics_errors": self.metrics_errors,
            "unhealthy_models": dict(self._served.unhealthy),
        }
