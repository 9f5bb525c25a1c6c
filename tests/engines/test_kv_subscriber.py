"""The subscriber against a publisher that loses batches, restarts and hangs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import zmq.asyncio

from lodestar_router.core.kv_events import (
    AllBlocksCleared,
    BlockStored,
    KvEvent,
    ViewId,
)
from lodestar_router.core.types import EngineId, PrefixViewKind
from lodestar_router.engines.kv_subscriber import KvSubscriber, KvTimings
from lodestar_router.tasks import cancel, spawn
from tests.engines.fake_publisher import TOPIC, FakePublisher

EXACT, PARTIAL, NONE = PrefixViewKind.EXACT, PrefixViewKind.PARTIAL, PrefixViewKind.NONE
VIEW = ViewId(EngineId("a"))
QUICK = KvTimings(settle_s=0.05, check_interval_s=0.1, backoff_s=0.01, max_backoff_s=0.05)
# Checks of a silent stream off, so that a test sees what a batch alone leads to.
UNCHECKED = KvTimings(settle_s=50, check_interval_s=50, backoff_s=0.01, max_backoff_s=0.05)
NO_ANSWER = KvTimings(replay_timeout_s=0.05, settle_s=50, check_interval_s=50, backoff_s=0.01)


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


async def eventually(holds: Callable[[], bool], why: Callable[[], str] = lambda: "") -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within 10 s: {why()}")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await cancel(*rig.tasks)
    if rig.publisher.endpoint != "tcp://127.0.0.1:0":
        await rig.publisher.stop()
    rig.context.term()


async def test_an_engine_that_has_published_nothing_is_exactly_empty(rig: Rig) -> None:
    await rig.publish()

    rig.subscribe()

    await rig.agreed(EXACT)


@pytest.mark.parametrize("topic_in_replay", [True, False], ids=["vllm-0.32", "older-vllm"])
async def test_what_was_published_before_is_replayed(rig: Rig, topic_in_replay: bool) -> None:
    publisher = await rig.publish(topic_in_replay=topic_in_replay)
    for _ in range(20):
        await publisher.store()

    rig.subscribe()

    await rig.agreed(EXACT)
    assert PARTIAL not in rig.sink.kinds


async def test_live_batches_are_applied_once(rig: Rig) -> None:
    publisher = await rig.publish()
    subscriber = rig.subscribe()
    await rig.agreed(EXACT)

    for _ in range(20):
        await publisher.store()

    await rig.agreed(EXACT)
    assert rig.sink.batches == 20
    assert subscriber.counters.malformed == subscriber.counters.resets == 0


async def test_a_replay_buffer_that_has_rolled_makes_the_view_partial(rig: Rig) -> None:
    publisher = await rig.publish(buffer_batches=3)
    names = [await publisher.store() for _ in range(5)]

    rig.subscribe()

    await eventually(lambda: rig.sink.kind is PARTIAL)
    await eventually(lambda: rig.sink.held == set(names[-3:]))
    assert EXACT not in rig.sink.kinds


async def test_a_gap_is_filled_from_the_last_batch_known(rig: Rig) -> None:
    publisher = await rig.publish()
    subscriber = rig.subscribe(UNCHECKED)
    await rig.agreed(EXACT)
    await rig.delivered()
    newest = publisher.next_seq - 1
    publisher.replay_requests.clear()

    await publisher.store(sent=False)
    await publisher.store(sent=False)
    await publisher.store()

    await eventually(lambda: rig.sink.held == publisher.held)
    await rig.agreed(EXACT)
    assert publisher.replay_requests == [newest]
    assert subscriber.counters.gaps >= 1
    assert rig.sink.kinds[-2:] == [PARTIAL, EXACT]


async def test_batches_lost_at_the_end_of_a_stream_are_found(rig: Rig) -> None:
    publisher = await rig.publish()
    rig.subscribe()
    await rig.agreed(EXACT)

    await publisher.store(sent=False)

    await rig.agreed(EXACT)


async def test_a_gap_that_the_buffer_no_longer_holds_lasts_until_the_cache_is_cleared(
    rig: Rig,
) -> None:
    publisher = await rig.publish(buffer_batches=2)
    rig.subscribe(UNCHECKED)
    await rig.agreed(EXACT)
    await rig.delivered()

    for _ in range(5):
        await publisher.store(sent=False)
    newest = await publisher.store()
    await eventually(lambda: newest in rig.sink.held)
    await publisher.store()
    await eventually(lambda: rig.sink.kind is PARTIAL)
    assert rig.sink.held < publisher.held
    await publisher.clear()
    await publisher.store()

    await rig.agreed(EXACT)


async def test_batches_dropped_inside_a_replay_are_asked_for_again(rig: Rig) -> None:
    publisher = await rig.publish()
    for _ in range(10):
        await publisher.store()
    publisher.dropped_from_replay = {4, 7}

    rig.subscribe(UNCHECKED)

    await rig.agreed(EXACT)
    assert publisher.replay_requests[:2] == [0, 3]


async def test_a_restarted_engine_is_forgotten_and_followed_anew(rig: Rig) -> None:
    publisher = await rig.publish()
    subscriber = rig.subscribe()
    for _ in range(5):
        await publisher.store()
    await rig.agreed(EXACT)

    await publisher.restart()
    await publisher.store()

    await rig.agreed(EXACT)
    assert subscriber.counters.resets == 1
    assert PARTIAL in rig.sink.kinds


async def test_a_restarted_engine_that_has_overtaken_the_old_count_is_noticed(rig: Rig) -> None:
    publisher = await rig.publish()
    subscriber = rig.subscribe(UNCHECKED)
    for _ in range(3):
        await publisher.store()
    await rig.agreed(EXACT)
    rig.sink.truth = lambda: publisher.held

    await publisher.restart()
    for _ in range(9):
        await publisher.store()

    await rig.agreed(EXACT)
    assert subscriber.counters.resets == 1
    assert subscriber.counters.gaps == 0


async def test_a_restarted_engine_that_has_published_nothing_is_exactly_empty(rig: Rig) -> None:
    publisher = await rig.publish()
    rig.subscribe(UNCHECKED)
    await publisher.store()
    await rig.agreed(EXACT)

    await publisher.restart()

    await rig.agreed(EXACT)
    assert rig.sink.held == set()


async def test_a_broken_connection_makes_the_view_partial_at_once(rig: Rig) -> None:
    publisher = await rig.publish()
    rig.subscribe(UNCHECKED)
    await publisher.store()
    await rig.agreed(EXACT)

    await publisher.stop()

    await eventually(lambda: rig.sink.kind is PARTIAL)
    assert len(rig.sink.held) == 1
    await publisher.start()


async def test_an_engine_that_starts_late_is_waited_for(rig: Rig) -> None:
    publisher = await rig.publish()
    await publisher.stop()
    subscriber = rig.subscribe()
    await asyncio.sleep(0.1)
    assert subscriber.counters.connections == 0

    await publisher.start()

    await rig.agreed(EXACT)


async def test_without_replay_a_stream_seen_from_its_start_is_exact(rig: Rig) -> None:
    publisher = await rig.publish()
    rig.subscribe(UNCHECKED, replay=False)
    await publisher.subscribed()
    assert rig.sink.kind is NONE

    await publisher.store()

    await rig.agreed(EXACT)


async def test_without_replay_a_late_subscriber_is_partial_until_cleared(rig: Rig) -> None:
    publisher = await rig.publish()
    await publisher.store()
    rig.subscribe(UNCHECKED, replay=False)
    await rig.delivered()
    assert rig.sink.kinds == [PARTIAL]

    await publisher.clear()

    await rig.agreed(EXACT)


async def test_without_replay_a_gap_stays_a_gap(rig: Rig) -> None:
    publisher = await rig.publish()
    rig.subscribe(UNCHECKED, replay=False)
    await rig.delivered()
    await publisher.clear()
    await rig.agreed(EXACT)

    lost = await publisher.store(sent=False)
    newest = await publisher.store()

    await eventually(lambda: newest in rig.sink.held)
    assert lost not in rig.sink.held
    assert rig.sink.kind is PARTIAL


async def test_without_replay_numbers_that_go_on_after_a_reconnection_prove_nothing(
    rig: Rig,
) -> None:
    publisher = await rig.publish()
    rig.subscribe(UNCHECKED, replay=False)
    await rig.delivered()
    await publisher.clear()
    await rig.agreed(EXACT)
    expected = publisher.next_seq

    await publisher.restart()
    publisher.next_seq = expected
    await rig.delivered()

    assert rig.sink.kind is PARTIAL


async def test_without_replay_a_stream_that_starts_again_is_a_restart(rig: Rig) -> None:
    publisher = await rig.publish()
    subscriber = rig.subscribe(UNCHECKED, replay=False)
    for _ in range(3):
        await rig.delivered()

    await publisher.restart()
    await publisher.subscribed()
    await publisher.store()

    await rig.agreed(EXACT)
    assert subscriber.counters.resets == 1


async def test_a_replay_that_is_never_answered_leaves_the_view_partial(rig: Rig) -> None:
    publisher = await rig.publish()
    publisher.replay_silent = True
    await publisher.store()
    rig.subscribe(NO_ANSWER)

    await rig.delivered()

    assert rig.sink.kinds == [PARTIAL]


async def test_a_replay_that_is_answered_late_still_counts(rig: Rig) -> None:
    publisher = await rig.publish()
    publisher.replay_silent = True
    await publisher.store()
    impatient = KvTimings(replay_timeout_s=0.2, settle_s=0.05, check_interval_s=0.05)
    rig.subscribe(impatient)
    await eventually(lambda: bool(publisher.replay_requests))
    assert rig.sink.kind is NONE

    publisher.replay_silent = False

    await rig.agreed(EXACT)


async def test_a_malformed_batch_makes_the_view_partial_and_is_passed(rig: Rig) -> None:
    publisher = await rig.publish()
    subscriber = rig.subscribe(UNCHECKED)
    await rig.delivered()
    await rig.agreed(EXACT)

    await publisher.publish_payload(b"\xc1 not msgpack")
    newest = await publisher.store()

    await eventually(lambda: newest in rig.sink.held)
    assert subscriber.counters.malformed == 1
    assert rig.sink.kind is PARTIAL


async def test_a_restart_told_from_outside_voids_the_view_once(rig: Rig) -> None:
    publisher = await rig.publish()
    subscriber = rig.subscribe(UNCHECKED)
    await publisher.store()
    await rig.agreed(EXACT)

    subscriber.engine_restarted()

    assert rig.sink.held == set()
    assert rig.sink.kind is NONE
    await rig.agreed(EXACT)
    assert subscriber.counters.connections == 2


async def test_a_restart_the_stream_has_shown_is_not_counted_again(rig: Rig) -> None:
    publisher = await rig.publish()
    subscriber = rig.subscribe(UNCHECKED)
    await publisher.store()
    await rig.agreed(EXACT)
    await publisher.restart()
    await publisher.store()
    await rig.agreed(EXACT)

    subscriber.engine_restarted()

    assert subscriber.counters.resets == 1
    assert rig.sink.kind is EXACT


async def test_a_stopped_subscriber_claims_nothing(rig: Rig) -> None:
    publisher = await rig.publish()
    rig.subscribe()
    await publisher.store()
    await rig.agreed(EXACT)

    await cancel(*rig.tasks)

    assert rig.sink.kind is PARTIAL
