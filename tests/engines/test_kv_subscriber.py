"""The subscriber against a publisher that loses batches or does not answer."""

from collections.abc import AsyncIterator

import pytest

from lodestar_router.engines.kv_subscriber import KvTimings
from tests.engines.kv_rig import EXACT, NONE, PARTIAL, UNCHECKED, Rig, eventually

NO_ANSWER = KvTimings(replay_timeout_s=0.05, settle_s=50, check_interval_s=50, backoff_s=0.01)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.close()


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
