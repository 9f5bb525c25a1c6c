"""The subscriber when connections break, engines restart or replay is missing."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from lodestar_router.tasks import cancel
from tests.engines.kv_rig import EXACT, NONE, PARTIAL, UNCHECKED, Rig, eventually


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.close()


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
