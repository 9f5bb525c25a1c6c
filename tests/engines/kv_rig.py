"""A fake publisher, a subscriber to it, and a sink that records what it is told."""

import asyncio
from collections.abc import Callable, Sequence

import zmq.asyncio

from lodestar_router.core.kv_events import AllBlocksCleared, BlockStored, KvEvent, ViewId
from lodestar_router.core.types import EngineId, PrefixViewKind
from lodestar_router.engines.kv_subscriber import KvSubscriber, KvTimings
from lodestar_router.tasks import cancel, spawn
from tests.engines.fake_publisher import TOPIC, FakePublisher

EXACT, PARTIAL, NONE = PrefixViewKind.EXACT, PrefixViewKind.PARTIAL, PrefixViewKind.NONE
VIEW = ViewId(EngineId("a"))
QUICK = KvTimings(settle_s=0.05, check_interval_s=0.1, backoff_s=0.01, max_backoff_s=0.05)
# Checks of a silent stream off, so that a test sees what a batch alone leads to.
UNCHECKED = KvTimings(settle_s=50, check_interval_s=50, backoff_s=0.01, max_backoff_s=0.05)


class RecordingSink:
    """The view as a plain set, and every kind it was ever said to be."""

    def __init__(self) -> None:
        self.held: set[int | bytes] = set()
        self.kinds: list[PrefixViewKind] = []
        self.resets = 0
        self.batches = 0
        self.truth: Callable[[], set[int | bytes]] | None = None

    def apply(self, view: ViewId, events: Sequence[KvEvent], unknown_events: int = 0) -> None:
        self.batches += 1
        for event in events:
            if isinstance(event, BlockStored):
                self.held.update(event.block_hashes)
            elif isinstance(event, AllBlocksCleared):
                self.held.clear()

    def reset(self, view: ViewId) -> None:
        self.resets += 1
        self.held.clear()

    def set_kind(self, view: ViewId, kind: PrefixViewKind) -> None:
        self.kinds.append(kind)
        if kind is EXACT and self.truth is not None:
            assert self.held == self.truth()

    @property
    def kind(self) -> PrefixViewKind:
        return self.kinds[-1] if self.kinds else NONE


class Rig:
    """A publisher, and subscribers to it that end with the test."""

    def __init__(self) -> None:
        self.context = zmq.asyncio.Context()
        self.sink = RecordingSink()
        self.tasks: list[asyncio.Task[None]] = []
        self.publisher = FakePublisher(self.context)

    async def publish(
        self, *, buffer_batches: int = 1000, topic_in_replay: bool = True
    ) -> FakePublisher:
        self.publisher = FakePublisher(
            self.context, buffer_batches=buffer_batches, topic_in_replay=topic_in_replay
        )
        return await self.publisher.start()

    def subscribe(self, timings: KvTimings = QUICK, *, replay: bool = True) -> KvSubscriber:
        subscriber = KvSubscriber(
            VIEW,
            self.publisher.endpoint,
            self.publisher.replay_endpoint if replay else None,
            self.sink,
            context=self.context,
            topic=TOPIC,
            timings=timings,
        )
        self.tasks.append(spawn(subscriber.run(), name="subscriber"))
        return subscriber

    async def agreed(self, kind: PrefixViewKind) -> None:
        await eventually(
            lambda: self.sink.kind is kind and self.sink.held == self.publisher.held,
            lambda: f"{self.sink.kinds} {self.sink.held} instead of {self.publisher.held}",
        )

    async def delivered(self) -> None:
        """Publish one batch to a subscriber that is there, and see it arrive."""
        await self.publisher.subscribed()
        name = await self.publisher.store()
        await eventually(lambda: name in self.sink.held)

    async def close(self) -> None:
        """End the subscribers, then the publisher."""
        await cancel(*self.tasks)
        if self.publisher.started:
            await self.publisher.stop()
        self.context.term()


async def eventually(holds: Callable[[], bool], why: Callable[[], str] = lambda: "") -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within 10 s: {why()}")
