import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from lodestar_vllm_stats.plugin import StatsPlugin
from lodestar_vllm_stats.publisher import HIGH_WATER, Publisher

from lodestar_router.engines.stats_wire import SchedulerStats, decode
from tests.patches.vllm_fakes import (
    FakeFinishedRequest,
    FakeIterationStats,
    FakeSchedulerStats,
    FakeVllmConfig,
)

PATIENCE_MS = 10_000  # a loaded machine, never the usual time


class Listener:
    """A subscriber that has certainly joined, with what it received."""

    def __init__(self, socket: "zmq.Socket[bytes]", publisher: Publisher) -> None:
        assert publisher.bound.wait(PATIENCE_MS / 1000)
        assert publisher.bound_endpoint is not None
        self._socket = socket
        self._socket.connect(publisher.bound_endpoint)
        self.next()

    def next(self) -> SchedulerStats:
        return decode(self._socket.recv())

    def next_with_steps(self, steps: int) -> SchedulerStats:
        while (stats := self.next()).steps_total < steps:
            pass
        return stats


@pytest.fixture
def subscriber() -> Iterator["zmq.Socket[bytes]"]:
    """A SUB socket with small buffers, not connected yet."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 8)
        socket.setsockopt(zmq.RCVBUF, 8192)
        socket.subscribe(b"")
        yield socket


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher("tcp://127.0.0.1:*", [0], interval_s=0.005, heartbeat_s=0.02)
    yield made
    made.close()


def test_a_step_reaches_a_subscriber_and_heartbeats_follow(
    subscriber: "zmq.Socket[bytes]", publisher: Publisher
) -> None:
    publisher.start()
    listener = Listener(subscriber, publisher)

    publisher.record(
        FakeSchedulerStats(num_running_reqs=2),
        FakeIterationStats(finished_requests=[FakeFinishedRequest()]),
        0,
    )

    step = listener.next_with_steps(1)
    heartbeat = listener.next()
    assert (step.num_running_reqs, len(step.finished)) == (2, 1)
    assert (heartbeat.num_running_reqs, heartbeat.finished) == (2, ())
    assert heartbeat.seq == step.seq + 1
    assert heartbeat.state_age_s > step.state_age_s


def test_many_steps_make_few_messages_and_lose_nothing(
    subscriber: "zmq.Socket[bytes]",
) -> None:
    publisher = Publisher("tcp://127.0.0.1:*", [0], interval_s=0.1, heartbeat_s=0.1)
    publisher.start()
    listener = Listener(subscriber, publisher)
    first_seq = listener.next().seq

    for _ in range(200):
        step = FakeIterationStats(num_generation_tokens=1)
        step.finished_requests = [FakeFinishedRequest()]
        publisher.record(FakeSchedulerStats(), step, 0)
    seen = listener.next()
    finished = len(seen.finished)
    while seen.steps_total < 200:
        seen = listener.next()
        finished += len(seen.finished)

    publisher.close()
    assert seen.seq - first_seq <= 50
    assert finished == 200
    assert seen.generation_tokens_total == 200


def test_every_rank_of_the_process_is_published_on_one_socket(
    subscriber: "zmq.Socket[bytes]",
) -> None:
    publisher = Publisher("tcp://127.0.0.1:*", [2, 3], interval_s=0.005, heartbeat_s=0.02)
    publisher.start()
    listener = Listener(subscriber, publisher)

    publisher.record(FakeSchedulerStats(num_running_reqs=1), None, 4)  # a rank added later

    seen = {listener.next().engine_index for _ in range(8)}
    publisher.close()
    assert seen == {2, 3, 4}


def test_a_stuck_subscriber_loses_messages_and_delays_nobody(
    subscriber: "zmq.Socket[bytes]", tmp_path: Path
) -> None:
    # The kernel buffers far less of a local socket than of a TCP one.
    publisher = Publisher(f"ipc://{tmp_path}/s", [0], interval_s=0.0001, heartbeat_s=0.0001)
    publisher.start()
    listener = Listener(subscriber, publisher)
    first_seq = listener.next().seq

    slowest_s = 0.0
    deadline_s = time.monotonic() + PATIENCE_MS / 1000
    while publisher.sent_total < 16 * HIGH_WATER and time.monotonic() < deadline_s:
        began_s = time.perf_counter()
        publisher.record(FakeSchedulerStats(), FakeIterationStats(), 0)
        slowest_s = max(slowest_s, time.perf_counter() - began_s)
        time.sleep(0.001)
    sent = publisher.sent_total
    received = [listener.next().seq - first_seq]
    while received[-1] < sent:
        received.append(listener.next().seq - first_seq)

    publisher.close()
    assert len(received) < sent, "nothing was dropped: the subscriber was not stuck"
    assert publisher.send_errors_total == 0
    assert slowest_s < 1.0


def test_a_port_in_use_is_logged_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environ = {"LODESTAR_STATS_ENDPOINT": f"tcp://127.0.0.1:{taken.getsockname()[1]}"}
        with caplog.at_level(logging.WARNING, logger="vllm.lodestar_stats"):
            plugin = StatsPlugin(FakeVllmConfig(), [0], environ)
            deadline_s = time.monotonic() + PATIENCE_MS / 1000
            while not caplog.records and time.monotonic() < deadline_s:
                time.sleep(0.005)
        plugin.record(FakeSchedulerStats(), None, 0)
        plugin.close()

    assert "cannot bind" in caplog.text
    assert plugin.record_errors_total == 0


def test_stats_of_an_unknown_shape_are_skipped_with_one_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugin = StatsPlugin(FakeVllmConfig(), [0], {"LODESTAR_STATS_ENDPOINT": "tcp://127.0.0.1:*"})

    for _ in range(3):
        plugin.record(object(), None, 0)
    plugin.close()

    assert plugin.record_errors_total == 3
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"LODESTAR_STATS_ENDPOINT": ""}, id="switched-off"),
        pytest.param({"LODESTAR_STATS_ENDPOINT": "nonsense"}, id="bad-endpoint"),
        pytest.param({"LODESTAR_STATS_INTERVAL_MS": "soon"}, id="bad-interval"),
    ],
)
def test_without_a_usable_setting_the_engine_runs_without_stats(environ: dict[str, str]) -> None:
    plugin = StatsPlugin(FakeVllmConfig(), [0], environ)

    plugin.record(FakeSchedulerStats(), None, 0)
    plugin.close()

    assert plugin.publisher is None
