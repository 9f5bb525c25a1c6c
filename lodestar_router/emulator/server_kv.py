"""Publishes an emulated engine's KV events as vLLM does, and replays them on request.

    PUB      (topic, sequence number, batch), numbers from 0 without holes
    ROUTER   a start number in; kept batches from there on out, then the end mark

In       the events of each step.
Out      msgpack batches, byte for byte as vLLM 0.32 sends them.
Cost     about 10 us per event; BUFFER_STEPS batches are kept for replays.
Errors   ConfigError when a port cannot be bound. A subscriber that is too slow
         loses batches, as ZMQ drops them; the numbers tell.
Source   vllm/distributed/kv_events.py at v0.32.0, ZmqEventPublisher.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import zmq
import zmq.asyncio

from lodestar_router.core.kv_events import KvEvent, KvEventBatch
from lodestar_router.emulator.block_pool import as_published
from lodestar_router.emulator.server_engine import Progress, Step
from lodestar_router.engines.kv_wire import encode
from lodestar_router.errors import ConfigError

_logger = logging.getLogger(__name__)

BUFFER_STEPS = 10_000  # these three are vLLM's defaults
HIGH_WATER = 100_000  # messages held per subscriber
_QUEUE_SIZE = 100_000
_END_OF_REPLAY = (-1).to_bytes(8, "big", signed=True)


def bind(socket: "zmq.Socket[Any]", host: str, port: int) -> int:
    """Bind to a TCP port, 0 for a free one; the port.

    Raises:
        ConfigError: it is taken.
    """
    where = f"tcp://{zmq_host(host)}:{port or '*'}"
    try:
        socket.ipv6 = ":" in host
        socket.bind(where)
    except zmq.ZMQError as error:
        raise ConfigError(f"cannot bind {where}: {error}") from error
    return int(socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])


def zmq_host(host: str) -> str:
    """A host as ZMQ endpoints write it; every interface is `*`."""
    if host in ("0.0.0.0", "::", ""):
        return "*"
    return f"[{host}]" if ":" in host else host


class KvPublisher:
    """The two sockets of one engine; `run` serves replays until cancelled."""

    def __init__(
        self, context: "zmq.Context[Any]", *, host: str, port: int, replay_port: int, topic: str
    ) -> None:
        self._topic = topic.encode()
        self._next_seq = 0
        self._kept: deque[tuple[bytes, bytes]] = deque(maxlen=BUFFER_STEPS)
        self._host = host
        # Sending never waits on a PUB socket, so it need not be an asynchronous one.
        self._pub: zmq.Socket[bytes] = context.socket(zmq.PUB, socket_class=zmq.Socket)
        self._replay = context.socket(zmq.ROUTER, socket_class=zmq.asyncio.Socket)
        self._pub.linger = self._replay.linger = 0
        self._pub.set_hwm(HIGH_WATER)
        self._replay.set_hwm(HIGH_WATER)
        try:
            self.port = bind(self._pub, host, port)
            self.replay_port = bind(self._replay, host, replay_port)
        except ConfigError:
            self.close()
            raise

    @property
    def published(self) -> int:
        """Batches so far."""
        return self._next_seq

    def sources(self) -> dict[str, dict[str, Any]]:
        """The answer to GET /kv_event_sources."""
        host = zmq_host(self._host)
        rank = {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": f"tcp://{host}:{self.port}",
            "replay_endpoint": f"tcp://{host}:{self.replay_port}",
            "buffer_steps": BUFFER_STEPS,
            "hwm": HIGH_WATER,
            "max_queue_size": _QUEUE_SIZE,
            "topic": self._topic.decode(),
        }
        return {"0": rank}

    def stepped(self, step: Step) -> None:
        """Publish what a step changed in the prefix cache."""
        if step.result.events:
            self.publish(step.result.events)

    def aborted(self, progress: Progress) -> None:
        """An abort frees blocks but forgets none."""

    def publish(self, events: Sequence[KvEvent]) -> None:
        """One batch."""
        batch = KvEventBatch(ts=time.time_ns() / 1e9, events=tuple(as_published(events)), dp_rank=0)
        seq, payload = self._next_seq.to_bytes(8, "big"), encode(batch)
        self._next_seq += 1
        self._kept.append((seq, payload))
        self._pub.send_multipart((self._topic, seq, payload), zmq.NOBLOCK)

    async def run(self) -> None:
        """Answer replay requests."""
        while True:
            frames = await self._replay.recv_multipart()
            if len(frames) != 3:
                _logger.warning("a replay request has %d frames instead of 3", len(frames))
                continue
            client, _, start = frames
            first = int.from_bytes(start, "big")
            for seq, payload in list(self._kept):
                if int.from_bytes(seq, "big") >= first:
                    await self._replay.send_multipart((client, b"", self._topic, seq, payload))
            await self._replay.send_multipart((client, b"", b"", _END_OF_REPLAY, b""))

    def close(self) -> None:
        """Close both sockets; events not yet sent are lost, as when a process dies."""
        self._pub.close()
        self._replay.close()
