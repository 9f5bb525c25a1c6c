"""The event streams of one engine: KV events per data-parallel rank, scheduler stats.

Where they are comes from the engine's spec, else for KV events from its
GET /kv_event_sources. A subscriber outlives the engine's restarts; only when the
endpoints themselves change is it replaced.
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import zmq.asyncio

from lodestar_router.core.fleet import Fleet
from lodestar_router.core.kv_events import ViewId
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import EngineSpec, PrefixViewKind
from lodestar_router.engines.api import EngineApi
from lodestar_router.engines.kv_endpoints import (
    KvEventSource,
    parse_kv_event_sources,
    resolve_endpoint,
)
from lodestar_router.engines.kv_subscriber import KvSubscriber
from lodestar_router.engines.stats_subscriber import StatsSubscriber
from lodestar_router.engines.stats_wire import SchedulerStats
from lodestar_router.tasks import cancel, spawn

_SOURCES_TIMEOUT_S = 5.0


class EngineFeeds:
    """Starts, keeps and stops the subscribers of one engine.

    Args:
        kv_events: False turns KV events off: the prefix view stays approximate.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        fleet: Fleet,
        index: PrefixIndex,
        context: zmq.asyncio.Context,
        clock: Callable[[], float],
        kv_events: bool = True,
    ) -> None:
        self.spec = spec  # read by start(): another one for the same engine may be put here
        self._fleet = fleet
        self._index = index
        self._context = context
        self._clock = clock
        self._use_kv_events = kv_events
        self._sources: tuple[KvEventSource, ...] = ()
        self._kv: dict[KvEventSource, tuple[KvSubscriber, asyncio.Task[None]]] = {}
        self._stats: StatsSubscriber | None = None
        self._stats_task: asyncio.Task[None] | None = None

    async def start(self, api: EngineApi) -> None:
        """Subscribe to what the engine offers; what runs already is kept."""
        wanted = await self._find_sources(api) if self._use_kv_events else ()
        for source in [source for source in self._kv if source not in wanted]:
            await cancel(self._kv.pop(source)[1])
            # What comes in its place, if anything does, tells the whole cache anew.
            view = ViewId(self.spec.engine_id, source.dp_rank)
            self._index.reset(view)
            self._index.set_kind(view, PrefixViewKind.NONE)
        for source in wanted:
            if source not in self._kv:
                self._kv[source] = self._subscribe(source)
        endpoints = ",".join(resolve_endpoint(e, self._host) for e in self.spec.scheduler_stats)
        if self._stats is not None and ",".join(self._stats.endpoints) != endpoints:
            await cancel(self._stats_task)
            self._stats = None
        if endpoints and self._stats is None:
            self._stats = StatsSubscriber(
                self.spec.engine_id,
                endpoints,
                self._on_stats,
                context=self._context,
                clock=self._clock,
            )
            self._stats_task = spawn(self._stats.run(), name=f"stats {self.spec.engine_id}")

    @property
    def _host(self) -> str:
        return urlsplit(self.spec.url).hostname or ""

    async def _find_sources(self, api: EngineApi) -> tuple[KvEventSource, ...]:
        if not self.spec.kv_events:
            answer = await api.kv_event_sources(_SOURCES_TIMEOUT_S)
            return tuple(parse_kv_event_sources(answer, self._host))
        replays = [*self.spec.kv_replay, *[None] * len(self.spec.kv_events)]
        return tuple(
            KvEventSource(
                dp_rank=rank,
                endpoint=resolve_endpoint(endpoint, self._host),
                replay_endpoint=resolve_endpoint(replay, self._host) if replay else None,
                topic=b"",
            )
            for rank, (endpoint, replay) in enumerate(
                zip(self.spec.kv_events, replays, strict=False)
            )
        )

    def _subscribe(self, source: KvEventSource) -> "tuple[KvSubscriber, asyncio.Task[None]]":
        subscriber = KvSubscriber(
            ViewId(self.spec.engine_id, source.dp_rank),
            source.endpoint,
            source.replay_endpoint,
            self._index,
            context=self._context,
            topic=source.topic,
        )
        return subscriber, spawn(subscriber.run(), name=f"kv events {source.endpoint}")

    def _on_stats(self, stats: SchedulerStats) -> None:
        assert self._stats is not None
        load = self._stats.load()
        if load is not None:
            self._fleet.observe_load(self.spec.engine_id, load)

    def engine_restarted(self) -> None:
        """The engine is a new process: what its predecessor cached is gone."""
        for subscriber, _ in self._kv.values():
            subscriber.engine_restarted()

    async def stop(self) -> None:
        """End every subscriber."""
        await cancel(self._stats_task, *(task for _, task in self._kv.values()))

    def describe(self) -> dict[str, Any]:
        """Endpoints and counters, for /engines."""
        return {
            "kv_events": [
                {
                    "dp_rank": source.dp_rank,
                    "endpoint": source.endpoint,
                    "replay": source.replay_endpoint,
                    **asdict(subscriber.counters),
                }
                for source, (subscriber, _) in self._kv.items()
            ],
            "scheduler_stats": None
            if self._stats is None
            else {"endpoints": self._stats.endpoints, **asdict(self._stats.counters)},
        }
