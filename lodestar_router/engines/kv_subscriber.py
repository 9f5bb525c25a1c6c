"""Follows one engine's KV events and keeps one view of its cache true.

In       the PUB endpoint of one data-parallel rank, and its replay endpoint if any.
Out      KvSink: apply, reset, set_kind. A view that missed something is never
         called exact; what the numbers prove is in `kv_sequence.py`.
Cost     one task and three sockets per rank; batches are taken as they come and
         the loop is yielded to after every few.
Errors   none for engine trouble: it is counted, logged and retried, within bounds.

    connect ─► synchronise ─► read ──gap──► synchronise ─► read ...
       ▲        (replay)       │
       └──── backoff ◄─ lost ──┘

Synchronising asks for the newest batch known again, and all after it. Is that
batch unchanged, it is the same life of the engine and what was missed is
applied; is it another or none, the engine restarted: forget and replay from 0.
A stream that is silent is synchronised as well, now and then: a batch may be
published between the connection and the subscription, or dropped by a full queue.
"""

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass

import zmq
import zmq.asyncio

from lodestar_router.core.kv_events import AllBlocksCleared, KvSink, ViewId
from lodestar_router.core.types import PrefixViewKind
from lodestar_router.engines.kv_connection import KvConnection
from lodestar_router.engines.kv_replay import ReplayError, replay
from lodestar_router.engines.kv_sequence import Step, StreamPosition
from lodestar_router.engines.kv_wire import KvWireError, decode
from lodestar_router.tasks import cancel, spawn

_logger = logging.getLogger(__name__)

_MESSAGES_AT_ONCE = 16  # between two turns of the event loop: some milliseconds at most
_REPLAY_ROUNDS = 64  # a full buffer of 10,000 batches may need a round per 1,000


@dataclass(frozen=True, slots=True, kw_only=True)
class KvTimings:
    """How long to wait for what, in seconds."""

    connect_timeout_s: float = 3.0
    replay_timeout_s: float = 2.0  # an engine answers between two steps
    settle_s: float = 0.5  # silence after connecting, before the first check for lost batches
    check_interval_s: float = 5.0  # silence before every further check
    backoff_s: float = 0.1  # before the first attempt to reconnect; doubles
    max_backoff_s: float = 5.0


@dataclass(slots=True)
class KvCounters:
    """What happened to one stream since the subscriber was made."""

    frames: int = 0
    gaps: int = 0
    replays: int = 0
    resets: int = 0
    malformed: int = 0
    connections: int = 0


class KvSubscriber:
    """One view's feed; `run` it as a task and cancel it to stop."""

    def __init__(
        self,
        view: ViewId,
        endpoint: str,
        replay_endpoint: str | None,
        sink: KvSink,
        *,
        context: zmq.asyncio.Context,
        topic: bytes = b"",
        timings: KvTimings | None = None,
    ) -> None:
        self.view = view
        self.counters = KvCounters()
        self.kind = PrefixViewKind.NONE
        self._endpoint, self._replay_endpoint, self._topic = endpoint, replay_endpoint, topic
        self._sink = sink
        self._context = context
        self._timings = timings or KvTimings()
        self._position = StreamPosition()
        self._connected = False
        self._behind = False  # a gap is known and not yet filled
        self._reconnect = asyncio.Event()
        self._resets_noticed = 0

    async def run(self) -> None:
        """Follow the engine until cancelled."""
        backoff_s = self._timings.backoff_s
        try:
            while True:
                try:
                    if await self._follow_one_connection():
                        backoff_s = self._timings.backoff_s
                except zmq.ZMQError as error:
                    _logger.warning("KV events of %s at %s: %s", self.view, self._endpoint, error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, self._timings.max_backoff_s)
        finally:
            self._disconnected()

    def engine_restarted(self) -> None:
        """The engine is known to be a new process: what was learned of the old is void.

        Does nothing when the stream has shown the restart already.
        """
        if self.counters.resets == self._resets_noticed:
            self._restart()
            self._reconnect.set()
        self._resets_noticed = self.counters.resets

    async def _follow_one_connection(self) -> bool:
        """Read until the connection ends; False when there was none."""
        self._reconnect.clear()
        with KvConnection(self._context, self._endpoint, self._topic) as connection:
            try:
                async with asyncio.timeout(self._timings.connect_timeout_s):
                    if not await connection.connect():
                        return False
            except TimeoutError:
                return False
            self.counters.connections += 1
            self._connected = True
            ends = [
                spawn(connection.lost(), name=f"kv-connection {self.view.engine_id}"),
                spawn(self._reconnect.wait(), name=f"kv-restart {self.view.engine_id}"),
                spawn(self._read(connection), name=f"kv-events {self.view.engine_id}"),
            ]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._disconnected()
                await cancel(*ends)
        return True

    async def _read(self, connection: KvConnection) -> None:
        await self._synchronise()
        silence_s = self._timings.settle_s
        while True:
            if not await connection.wait(silence_s):
                await self._synchronise()
                silence_s = self._timings.check_interval_s
                continue
            for _ in range(_MESSAGES_AT_ONCE):
                message = connection.receive()
                if message is None:
                    break
                await self._on_message(message)
            await asyncio.sleep(0)

    async def _on_message(self, message: list[bytes]) -> None:
        self.counters.frames += 1
        if len(message) != 3 or len(message[1]) != 8:
            self.counters.malformed += 1
            self._position.lost()
            self._publish_kind()
            return
        seq, payload = int.from_bytes(message[1], "big"), message[2]
        step = self._position.judge(seq, payload)
        if step is Step.GAP or step is Step.RESTART:
            if step is Step.RESTART:
                self._restart()
            elif seq != self._position.next_seq:
                self.counters.gaps += 1
            self._behind = True
            self._publish_kind()
            await self._synchronise()
            step = self._position.judge(seq, payload)
        if step is not Step.DUPLICATE:
            self._apply(seq, payload)
        self._behind = False
        self._publish_kind()

    async def _synchronise(self) -> None:
        """Catch up by replay, as far as the engine can; without replay nothing happens."""
        if self._replay_endpoint is None:
            return
        position = self._position
        before = (position.proven, position.next_seq)
        try:
            for _ in range(_REPLAY_ROUNDS):
                if await self._replay_once(self._replay_endpoint):
                    break
            else:
                position.lost()
        except ReplayError as error:
            _logger.warning("KV events of %s: %s", self.view, error)
            if before != (True, position.next_seq):  # it broke off while there was more to come
                position.disconnected()
        self._publish_kind()

    async def _replay_once(self, endpoint: str) -> bool:
        """Replay from the newest batch known; False when another round is needed."""
        position = self._position
        expected = position.next_seq
        start = max((expected or 0) - 1, 0)
        self.counters.replays += 1
        first, timeout_s = True, self._timings.replay_timeout_s
        async with aclosing(replay(self._context, endpoint, start, timeout_s=timeout_s)) as batches:
            async for seq, payload in batches:
                if first and expected and not self._continues(start, seq, payload):
                    return False
                if not first and seq > (position.next_seq or 0):  # the engine dropped some
                    if position.next_seq != expected:
                        return False  # ask again, from the last that arrived
                    position.lost()
                if not position.knows(seq, payload):
                    self._apply(seq, payload)
                first = False
                if not seq % _MESSAGES_AT_ONCE:
                    await asyncio.sleep(0)
        if first and expected and not position.proven:
            self._restart()
            return False
        if first and not expected:
            position.nothing_published()
        return True

    def _continues(self, start: int, seq: int, payload: bytes) -> bool:
        """Whether a replay's first batch belongs to what was applied before."""
        position = self._position
        if seq == start and position.knows(seq, payload):
            position.proven = True
            return True
        if seq > start and position.proven:  # same engine, but its buffer has moved on
            return True
        self._restart()
        return False

    def _apply(self, seq: int, payload: bytes) -> None:
        self._position.advance(seq, payload)
        try:
            batch = decode(payload)
        except KvWireError as error:
            self.counters.malformed += 1
            self._position.lost()
            _logger.warning("KV events of %s, batch %d: %s", self.view, seq, error)
            return
        self._sink.apply(self.view, batch.events, batch.unknown_events)
        if any(isinstance(event, AllBlocksCleared) for event in batch.events):
            self._position.cleared()

    def _restart(self) -> None:
        self.counters.resets += 1
        self._position.forget()
        self._sink.reset(self.view)
        self._publish_kind()

    def _disconnected(self) -> None:
        self._connected = False
        self._position.disconnected()
        self._publish_kind()

    def _publish_kind(self) -> None:
        if self._connected and self._position.exact and not self._behind:
            kind = PrefixViewKind.EXACT
        elif self._position.next_seq is None:
            kind = PrefixViewKind.NONE
        else:
            kind = PrefixViewKind.PARTIAL
        if kind is not self.kind:
            self.kind = kind
            self._sink.set_kind(self.view, kind)
