"""Listens to the scheduler stats of one engine.

In       ZMQ SUB frames from the vLLM plugin, one endpoint per API-server process.
Out      on_stats(SchedulerStats) for every message; load(), the engine as a whole.
Cost     one wake-up of the event loop per burst and about 10 us per message: a
         plain socket watched by its descriptor, since one future per message
         costs several times that at 100 messages/s and engine.
Errors   ConfigError from run() when an endpoint cannot be one; else only what
         on_stats raises. Bad frames are counted, the first is logged. A silent
         engine is no error: load() keeps the time it last spoke.
Source   ZMQ_FD in zmq_getsockopt(3): the descriptor is edge-triggered, so the
         socket is read until it is empty.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from lodestar_router.core.types import EngineId, EngineLoad
from lodestar_router.engines.stats_wire import (
    LOAD_SOURCE,
    MalformedStatsError,
    SchedulerStats,
    UnknownStatsVersionError,
    decode,
)
from lodestar_router.errors import ConfigError

_logger = logging.getLogger(__name__)

MESSAGES_PER_TURN = 64  # then other tasks of the loop get their turn
RECEIVE_HIGH_WATER = 1000  # messages held for a busy router; older ones win, gaps tell
RECONNECT_MAX_MS = 2000
# A host that vanished without closing its connection is noticed and reconnected.
PING_INTERVAL_MS = 2000
PING_TIMEOUT_MS = 6000
FORGET_AFTER_S = 5.0  # 20 heartbeats of the plugin: the process is gone


@dataclass(slots=True)
class StatsCounters:
    """What a subscriber has seen since it was made."""

    messages: int = 0
    lost: int = 0  # gaps in seq
    publishers: int = 0  # API-server processes met; grows when an engine restarts
    malformed: int = 0
    unknown_version: int = 0


@dataclass(frozen=True, slots=True)
class _View:
    """A message and when it came, in seconds of the router's clock."""

    stats: SchedulerStats
    observed_at_s: float

    @property
    def stepped_at_s(self) -> float:
        return self.observed_at_s - self.stats.state_age_s


class StatsLoadView:
    """The load of one engine, out of the messages of its ranks and API servers.

    vLLM tells each step to one API server only, so of several the one that
    heard the latest step is right and the others repeat an older one:

        rank = the publisher whose latest step is newest
        load = sum of requests, mean of KV usage over the ranks
        observed_at_s = when the rank that was silent longest last spoke

    The mean, because vLLM itself spreads requests over its ranks. A publisher
    silent for FORGET_AFTER_S while another speaks is forgotten. Pure.
    """

    def __init__(self) -> None:
        self._views: dict[tuple[int, str], _View] = {}

    def apply(self, stats: SchedulerStats, observed_at_s: float) -> SchedulerStats | None:
        """Take a message in; the one before it from the same publisher and rank."""
        key = (stats.engine_index, stats.publisher)
        before = self._views.get(key)
        self._views[key] = _View(stats, observed_at_s)
        if len(self._views) > 1:
            self._forget_silent(observed_at_s)
        return None if before is None else before.stats

    def knows(self, publisher: str) -> bool:
        """Whether this API-server process has spoken and is not forgotten."""
        return any(known == publisher for _, known in self._views)

    def load(self) -> EngineLoad | None:
        """The engine's load; None until it has spoken."""
        newest: dict[int, _View] = {}
        heard: dict[int, float] = {}
        for (rank, _), view in self._views.items():
            heard[rank] = max(heard.get(rank, view.observed_at_s), view.observed_at_s)
            if rank not in newest or view.stepped_at_s > newest[rank].stepped_at_s:
                newest[rank] = view
        if not newest:
            return None
        ranks = [view.stats for view in newest.values()]
        return EngineLoad(
            observed_at_s=min(heard.values()),
            source=LOAD_SOURCE,
            num_running_reqs=sum(stats.num_running_reqs for stats in ranks),
            num_waiting_reqs=sum(stats.num_waiting_reqs for stats in ranks),
            kv_cache_usage_ratio=min(
                1.0, sum(stats.kv_cache_usage_ratio for stats in ranks) / len(ranks)
            ),
        )

    def _forget_silent(self, now_s: float) -> None:
        silent = [k for k, v in self._views.items() if now_s - v.observed_at_s > FORGET_AFTER_S]
        for key in silent:
            del self._views[key]


class StatsSubscriber:
    """Follows one engine from run() until cancelled; ZMQ reconnects by itself.

    `endpoint` is ready to connect to (no wildcard host); an engine with several
    API servers has one each, separated by commas. `clock` is monotonic seconds.
    Messages of an unknown version or that cannot be read are counted, not told.
    """

    def __init__(
        self,
        engine_id: EngineId,
        endpoint: str,
        on_stats: Callable[[SchedulerStats], None],
        *,
        context: "zmq.Context[Any]",
        clock: Callable[[], float],
    ) -> None:
        self.engine_id = engine_id
        self.endpoints = tuple(part.strip() for part in endpoint.split(",") if part.strip())
        self.counters = StatsCounters()
        self._on_stats = on_stats
        self._context = context
        self._clock = clock
        self._view = StatsLoadView()

    def load(self) -> EngineLoad | None:
        """The engine over all its ranks, the message in on_stats included."""
        return self._view.load()

    async def run(self) -> None:
        """Receive until cancelled."""
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        with self._connect() as socket:
            descriptor = socket.fileno()
            loop.add_reader(descriptor, readable.set)
            try:
                while True:
                    if not self._receive(socket):
                        await asyncio.sleep(0)
                        continue
                    await readable.wait()
                    readable.clear()
            finally:
                loop.remove_reader(descriptor)

    def _connect(self) -> "zmq.Socket[bytes]":
        socket: zmq.Socket[bytes] = self._context.socket(zmq.SUB, socket_class=zmq.Socket)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_HIGH_WATER)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, PING_INTERVAL_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, PING_TIMEOUT_MS)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            for endpoint in self.endpoints:
                socket.connect(endpoint)
        except zmq.ZMQError as error:
            socket.close()
            raise ConfigError(f"engine {self.engine_id}: scheduler stats: {error}") from error
        return socket

    def _receive(self, socket: "zmq.Socket[bytes]") -> bool:
        """Handle what has arrived; False when it stopped before the socket was empty."""
        for _ in range(MESSAGES_PER_TURN):
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return True
            self._handle(frames[-1])
        return False

    def _handle(self, payload: bytes) -> None:
        try:
            stats = decode(payload)
        except UnknownStatsVersionError as error:
            self.counters.unknown_version += 1
            self._warn_once(self.counters.unknown_version, error)
        except MalformedStatsError as error:
            self.counters.malformed += 1
            self._warn_once(self.counters.malformed, error)
        else:
            self._apply(stats)
            self._on_stats(stats)

    def _apply(self, stats: SchedulerStats) -> None:
        self.counters.messages += 1
        self.counters.publishers += not self._view.knows(stats.publisher)
        before = self._view.apply(stats, self._clock())
        if before is not None:
            self.counters.lost += max(0, stats.seq - before.seq - 1)

    def _warn_once(self, count: int, error: Exception) -> None:
        if count == 1:
            _logger.warning("engine %s: %s", self.engine_id, error)
