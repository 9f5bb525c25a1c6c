"""A KV event publisher as vLLM 0.32 has it, with faults to order.

A PUB socket (an XPUB: it tells of subscriptions) and a ROUTER socket on ports of
127.0.0.1 that outlive a restart, and the last batches kept for replay. Every
batch stores one block, named by a number that no other batch of any life has.
"""

import asyncio
from collections import deque
from itertools import count

import zmq
import zmq.asyncio

from lodestar_router.core.kv_events import AllBlocksCleared, BlockStored, KvEvent, KvEventBatch
from lodestar_router.engines.kv_wire import encode
from lodestar_router.tasks import cancel, spawn

END_OF_REPLAY = (-1).to_bytes(8, "big", signed=True)
TOPIC = b"kv-events"


class FakePublisher:
    """`held` is the truth: the blocks this engine's cache has now."""

    def __init__(
        self,
        context: zmq.asyncio.Context,
        *,
        buffer_batches: int = 1000,
        topic_in_replay: bool = True,
    ) -> None:
        self.held: set[int | bytes] = set()
        self.next_seq = 0
        self.replay_requests: list[int] = []
        self.replay_silent = False
        self.dropped_from_replay: set[int] = set()  # left out once each
        self._context = context
        self._buffer_batches = buffer_batches
        self._topic_in_replay = topic_in_replay
        self._ports = [0, 0]
        self._names = count(1)
        self._task: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        return self._task is not None

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self._ports[0]}"

    @property
    def replay_endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self._ports[1]}"

    async def start(self) -> "FakePublisher":
        """A new life: nothing cached, nothing published."""
        self.held, self.next_seq = set(), 0
        self._buffer: deque[tuple[int, bytes]] = deque(maxlen=self._buffer_batches)
        self._pub = self._context.socket(zmq.XPUB)
        self._subscribed = False
        self._router = self._context.socket(zmq.ROUTER)
        for index, socket in enumerate((self._pub, self._router)):
            socket.linger = 0
            self._ports[index] = await _bind(socket, self._ports[index])
        self._task = spawn(self._serve_replay(), name="fake replay")
        return self

    async def stop(self) -> None:
        """As SIGKILL leaves it: connections end, memory is gone."""
        await cancel(self._task)
        self._task = None
        self._pub.close()
        self._router.close()
        for port in self._ports:
            await _refusing(port)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def subscribed(self) -> None:
        """Wait for a subscription: what is sent before it reaches nobody."""
        while not self._subscribed:
            self._subscribed = (await self._pub.recv())[:1] == b"\x01"

    async def store(self, *, sent: bool = True) -> int:
        """Publish a batch that stores one new block; unsent ones are in the buffer only."""
        name = next(self._names)
        self.held.add(name)
        await self.publish([stored(name)], sent=sent)
        return name

    async def clear(self) -> None:
        self.held.clear()
        await self.publish([AllBlocksCleared()])

    async def publish(self, events: list[KvEvent], *, sent: bool = True) -> None:
        batch = KvEventBatch(ts=float(next(self._names)), events=tuple(events), dp_rank=0)
        await self.publish_payload(encode(batch), sent=sent)

    async def publish_payload(self, payload: bytes, *, sent: bool = True) -> None:
        seq = self.next_seq.to_bytes(8, "big")
        self._buffer.append((self.next_seq, payload))
        self.next_seq += 1
        if sent:
            await self._pub.send_multipart([TOPIC, seq, payload])

    async def _serve_replay(self) -> None:
        while True:
            client, _, start = await self._router.recv_multipart()
            self.replay_requests.append(int.from_bytes(start, "big"))
            if self.replay_silent:
                continue
            topic = [TOPIC] if self._topic_in_replay else []
            for seq, payload in list(self._buffer):
                if seq in self.dropped_from_replay:
                    self.dropped_from_replay.remove(seq)
                elif seq >= int.from_bytes(start, "big"):
                    head = [client, b"", *topic]
                    await self._router.send_multipart([*head, seq.to_bytes(8, "big"), payload])
            end = [client, b"", *([b""] if topic else []), END_OF_REPLAY, b""]
            await self._router.send_multipart(end)


def stored(name: int) -> BlockStored:
    """One block of one token, with nothing before it."""
    return BlockStored(
        block_hashes=(name,), parent_block_hash=None, token_ids=[name], block_size_tokens=1
    )


async def _refusing(port: int) -> None:
    """Wait until nobody listens: ZeroMQ closes sockets in a thread of its own."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        writer.close()
        await asyncio.sleep(0.001)


async def _bind(socket: "zmq.asyncio.Socket", port: int) -> int:
    """Bind; a port just left may take a moment to be free."""
    for _ in range(200):
        try:
            socket.bind(f"tcp://127.0.0.1:{port or '*'}")
            endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
            assert isinstance(endpoint, bytes)
            return int(endpoint.rpartition(b":")[2])
        except zmq.ZMQError:
            await asyncio.sleep(0.01)
    raise AssertionError(f"port {port} stayed in use")
