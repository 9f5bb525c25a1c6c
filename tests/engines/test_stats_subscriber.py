import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
import zmq
import zmq.asyncio

from lodestar_router.core.types import EngineId, EngineLoad
from lodestar_router.engines.stats_subscriber import (
    FORGET_AFTER_S,
    MESSAGES_PER_TURN,
    StatsLoadView,
    StatsSubscriber,
)
from lodestar_router.engines.stats_wire import SchedulerStats, encode
from lodestar_router.errors import ConfigError
from lodestar_router.tasks import cancel, spawn
from tests.engines.stats_samples import scheduler_stats

PATIENCE_S = 10.0  # a loaded machine, never the usual time


def load_of(view: StatsLoadView) -> tuple[int, int, float, float]:
    load = view.load()
    assert load is not None
    usage = round(load.kv_cache_usage_ratio, 6)
    return (load.num_running_reqs, load.num_waiting_reqs, usage, load.observed_at_s)


def test_an_engine_that_never_spoke_has_no_load() -> None:
    assert StatsLoadView().load() is None


def test_ranks_add_up_and_the_quietest_one_sets_the_age() -> None:
    view = StatsLoadView()

    view.apply(scheduler_stats(num_running_reqs=2, kv_cache_usage_ratio=0.2), 10.0)
    view.apply(
        scheduler_stats(
            engine_index=1, num_running_reqs=3, num_waiting_reqs=1, kv_cache_usage_ratio=0.6
        ),
        11.0,
    )

    assert load_of(view) == (5, 1, 0.4, 10.0)


def test_of_several_api_servers_the_one_that_heard_the_latest_step_is_right() -> None:
    view = StatsLoadView()
    view.apply(scheduler_stats(publisher="a", num_running_reqs=5), 10.0)
    view.apply(scheduler_stats(publisher="b", num_running_reqs=1), 10.1)

    view.apply(scheduler_stats(publisher="a", seq=2, num_running_reqs=5, state_age_s=0.25), 10.25)

    assert load_of(view) == (1, 0, 0.0, 10.25)


def test_a_restarted_engine_replaces_what_its_former_self_said() -> None:
    view = StatsLoadView()
    view.apply(scheduler_stats(publisher="old", seq=900, num_running_reqs=5), 10.0)

    view.apply(scheduler_stats(publisher="new", seq=1), 12.0)

    assert load_of(view) == (0, 0, 0.0, 12.0)


def test_a_publisher_silent_while_another_speaks_is_forgotten() -> None:
    view = StatsLoadView()
    view.apply(scheduler_stats(publisher="a"), 10.0)
    view.apply(scheduler_stats(publisher="b"), 10.0)

    view.apply(scheduler_stats(publisher="b", seq=2), 10.1 + FORGET_AFTER_S)

    assert not view.knows("a")
    assert view.knows("b")


def test_an_engine_that_fell_silent_keeps_its_last_load_and_its_age() -> None:
    view = StatsLoadView()

    view.apply(scheduler_stats(num_running_reqs=4), 10.0)

    assert load_of(view) == (4, 0, 0.0, 10.0)


class Bench:
    """A fake plugin on a port of its own, and a subscriber that listens to it."""

    def __init__(self, publisher: "zmq.Socket[bytes]", context: zmq.asyncio.Context) -> None:
        self.publisher = publisher
        self.now_s = 50.0
        self.received: list[SchedulerStats] = []
        endpoint = publisher.getsockopt_string(zmq.LAST_ENDPOINT)
        self.subscriber = StatsSubscriber(
            EngineId("e"),
            endpoint,
            self.received.append,
            context=context,
            clock=lambda: self.now_s,
        )

    def send(self, *messages: SchedulerStats) -> None:
        for message in messages:
            self.publisher.send(encode(message))

    async def joined(self) -> None:
        """Repeat a message until it arrives: subscribing takes its time."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.received:
                self.send(scheduler_stats(publisher="probe", seq=1))
                await asyncio.sleep(0.005)
            self.publisher.send(encode(scheduler_stats(publisher="probe", seq=2)))
            await self.until(lambda: self.received[-1].seq == 2)
        self.received.clear()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.002)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    with (
        zmq.Context() as sending,
        zmq.asyncio.Context() as receiving,
        sending.socket(zmq.PUB) as publisher,
    ):
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.bind("tcp://127.0.0.1:*")
        made = Bench(publisher, receiving)
        task = spawn(made.subscriber.run(), name="stats")
        try:
            await made.joined()
            yield made
        finally:
            await cancel(task)


async def test_messages_arrive_in_order_and_the_load_is_current_when_told() -> None:
    async with bench() as at:
        at.now_s = 60.0

        at.send(*(scheduler_stats(seq=n, num_running_reqs=n) for n in range(1, 4)))
        await at.until(lambda: len(at.received) == 3)

        assert [stats.seq for stats in at.received] == [1, 2, 3]
        assert at.subscriber.counters.lost == 0
        load = at.subscriber.load()
        assert isinstance(load, EngineLoad)
        assert (load.num_running_reqs, load.source) == (3, "scheduler_stats")


async def test_a_burst_longer_than_one_turn_is_read_to_its_end() -> None:
    async with bench() as at:
        count = 3 * MESSAGES_PER_TURN + 1

        at.send(*(scheduler_stats(seq=n) for n in range(1, count + 1)))

        await at.until(lambda: len(at.received) == count)


async def test_gaps_and_new_publishers_are_counted() -> None:
    async with bench() as at:
        before = at.subscriber.counters.publishers

        at.send(
            scheduler_stats(publisher="a", seq=5),
            scheduler_stats(publisher="a", seq=9),
            scheduler_stats(publisher="a", engine_index=1, seq=1),
            scheduler_stats(publisher="b", seq=1),
        )
        await at.until(lambda: len(at.received) == 4)

        assert at.subscriber.counters.lost == 3
        assert at.subscriber.counters.publishers == before + 2


async def test_unknown_versions_and_rubbish_are_counted_and_survived(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with bench() as at:
        for _ in range(2):
            at.publisher.send(msgspec.msgpack.encode({"v": 7}))
            at.publisher.send(b"\xc1")
        at.send(scheduler_stats())
        await at.until(lambda: len(at.received) == 1)

        assert at.subscriber.counters.unknown_version == 2
        assert at.subscriber.counters.malformed == 2
        assert len(caplog.records) == 2


async def test_an_error_of_the_receiver_ends_run_with_that_error() -> None:
    def refuse(_: SchedulerStats) -> None:
        raise RuntimeError("receiver is broken")

    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.bind("tcp://127.0.0.1:*")
        endpoint = publisher.getsockopt_string(zmq.LAST_ENDPOINT)
        subscriber = StatsSubscriber(
            EngineId("e"), endpoint, refuse, context=context, clock=lambda: 0.0
        )
        running = asyncio.get_running_loop().create_task(subscriber.run())

        while not running.done():
            publisher.send(encode(scheduler_stats()))
            await asyncio.sleep(0.005)

        with pytest.raises(RuntimeError, match="receiver is broken"):
            await running


async def test_an_engine_that_comes_back_on_its_port_is_heard_again() -> None:
    async with bench() as at:
        endpoint = at.publisher.getsockopt_string(zmq.LAST_ENDPOINT)
        at.publisher.close()
        with zmq.Context() as context, context.socket(zmq.PUB) as second:
            second.setsockopt(zmq.LINGER, 0)
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        second.bind(endpoint)
                        break
                    except zmq.ZMQError:
                        await asyncio.sleep(0.01)

                while not at.received:
                    second.send(encode(scheduler_stats(publisher="second")))
                    await asyncio.sleep(0.005)

        assert at.received[0].publisher == "second"


async def test_an_endpoint_that_cannot_be_one_is_a_config_error() -> None:
    with zmq.Context() as context:
        subscriber = StatsSubscriber(
            EngineId("e"), "engine:5559", lambda _: None, context=context, clock=lambda: 0.0
        )

        with pytest.raises(ConfigError, match="engine e: scheduler stats"):
            await subscriber.run()


async def test_one_subscriber_follows_all_api_servers_of_an_engine() -> None:
    received: set[str] = set()
    with (
        zmq.Context() as context,
        context.socket(zmq.PUB) as first,
        context.socket(zmq.PUB) as second,
    ):
        publishers = {"a": first, "b": second}
        for socket in publishers.values():
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind("tcp://127.0.0.1:*")
        ends = [s.getsockopt_string(zmq.LAST_ENDPOINT) for s in publishers.values()]
        subscriber = StatsSubscriber(
            EngineId("e"),
            ", ".join(ends),
            lambda stats: received.add(stats.publisher),
            context=context,
            clock=lambda: 0.0,
        )
        task = spawn(subscriber.run(), name="stats")

        async with asyncio.timeout(PATIENCE_S):
            while received != {"a", "b"}:
                for name, socket in publishers.items():
                    socket.send(encode(scheduler_stats(publisher=name)))
                await asyncio.sleep(0.005)
        await cancel(task)
