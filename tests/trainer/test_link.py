import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from lodestar_router.features.serving import PublishedModel
from lodestar_router.learning.checkpoint import load
from lodestar_router.trainer.keeper import ROUTER_FILE
from lodestar_router.trainer.link import TrainerLink, end_process, trainer_command
from tests.features.models import model, row
from tests.learning.traffic import rows

ROOT = Path(__file__).resolve().parents[2]


class Linked:
    """A link and the models it delivered."""

    def __init__(self) -> None:
        self.models: list[PublishedModel] = []
        self.link: TrainerLink

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, self.link
            await asyncio.sleep(0.005)

    async def model(self, version: int) -> None:
        await self.until(lambda: any(model.version == version for model in self.models))


Start = Callable[..., Linked]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    started: list[Linked] = []

    def begin(
        behaviour: str = "behaves",
        *,
        served: PublishedModel | None = None,
        capacity: int = 100,
        stop_timeout_s: float = 5.0,
        on_model: Callable[[PublishedModel], None] | None = None,
    ) -> Linked:
        linked = Linked()
        linked.link = TrainerLink(
            on_model or linked.models.append,
            command=[sys.executable, "-m", "tests.trainer.fake_trainer", behaviour],
            model=served,
            capacity=capacity,
            backoff_s=(0.01, 0.02),
            stop_timeout_s=stop_timeout_s,
        )
        linked.link.start()
        started.append(linked)
        return linked

    yield begin
    for linked in started:
        await linked.link.stop()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_rows_go_out_and_models_come_in(start: Start) -> None:
    linked = start(served=model(version=6))

    linked.link.offer(row())
    await linked.model(7)
    await linked.until(lambda: linked.link.last_report is not None)

    assert linked.link.last_report == {"rows": 1}
    assert linked.link.counters.models_received == 1
    assert repr(linked.link) == f"<TrainerLink pid {linked.link.pid}, model 7, 0 rows unsent>"


async def test_rows_that_come_one_after_the_other_wake_the_trainer_once(start: Start) -> None:
    linked = start(served=model(version=6))
    linked.link.offer(row())
    await linked.model(7)

    for _ in range(5):
        linked.link.offer(row())
        await asyncio.sleep(0.01)
    await linked.until(lambda: linked.link.last_report == {"rows": 6})

    assert [model.version for model in linked.models] == [7, 8]


async def test_rows_that_wait_for_others_are_sent_before_the_end(start: Start) -> None:
    linked = start(served=model(version=6))
    linked.link.offer(row())
    await linked.model(7)
    linked.link.offer(row())
    await asyncio.sleep(0.01)

    await linked.link.stop()

    assert linked.link.counters.rows_sent == 2


async def test_a_trainer_that_is_killed_is_started_again_where_it_was(start: Start) -> None:
    linked = start(served=model(version=6))
    linked.link.offer(row())
    await linked.model(7)
    pid = linked.link.pid
    assert pid is not None

    os.kill(pid, signal.SIGKILL)
    await linked.model(8)

    assert linked.link.pid != pid
    assert linked.link.counters.starts == 2
    assert linked.link.counters.rows_sent == 2, "the row remembered was sent again"


async def test_a_trainer_that_cannot_start_is_tried_again(start: Start) -> None:
    linked = start("dies-at-start")

    linked.link.offer(row())
    await linked.until(lambda: linked.link.counters.starts >= 2)

    assert linked.models == []


async def test_a_command_that_does_not_exist_does_no_harm() -> None:
    link = TrainerLink(lambda _: None, command=["/nonexistent"], backoff_s=(0.001, 0.001))
    link.start()
    for _ in range(20):
        link.offer(row())
        await asyncio.sleep(0.001)

    assert (link.running, link.pid) == (False, None)

    await link.stop()


async def test_a_reader_that_fails_does_not_end_the_training(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[int] = []

    def refuse_the_first(model: PublishedModel) -> None:
        taken.append(model.version)
        if model.version == 1:
            raise RuntimeError("no room")

    linked = start(on_model=refuse_the_first)

    linked.link.offer(row())
    await linked.until(lambda: taken == [1])
    linked.link.offer(row())
    await linked.until(lambda: taken == [1, 2])

    assert linked.link.counters.starts == 1
    assert "model version 1 was not taken" in caplog.text
    assert "no room" in caplog.text


async def test_a_trainer_that_writes_rubbish_is_replaced(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    linked = start("writes-rubbish")

    await linked.until(lambda: linked.link.counters.starts >= 2)

    assert "not a frame" in caplog.text


async def test_offers_never_block_and_memory_is_bounded(start: Start) -> None:
    linked = start("never-reads", capacity=2000, stop_timeout_s=0.05)
    await linked.until(lambda: linked.link.running)
    offered = 0

    started_s = time.monotonic()
    while linked.link.counters.rows_dropped == 0:
        linked.link.offer(row())
        offered += 1
        if offered % 100 == 0:
            await asyncio.sleep(0)
    spent_s = time.monotonic() - started_s

    counters = linked.link.counters
    assert offered == counters.rows_offered < 6000, "2,000 here, and what a pipe holds"
    assert spent_s < 5.0
    assert counters.rows_sent < 4000


async def test_without_a_trainer_the_newest_rows_are_kept() -> None:
    link = TrainerLink(lambda _: None, command=["/nonexistent"], capacity=10)

    for _ in range(25):
        link.offer(row())

    assert (link.counters.rows_offered, link.counters.rows_dropped) == (25, 15)


@pytest.mark.parametrize(
    ("behaviour", "stop_timeout_s"),
    [
        pytest.param("behaves", 10.0, id="ends-by-itself"),
        pytest.param("ignores-the-end", 0.1, id="has-to-be-terminated"),
    ],
)
async def test_no_process_outlives_a_stopped_link(
    start: Start, behaviour: str, stop_timeout_s: float
) -> None:
    linked = start(behaviour, stop_timeout_s=stop_timeout_s)
    linked.link.offer(row())
    await linked.model(1)
    pid = linked.link.pid
    assert pid is not None

    await linked.link.stop()

    assert not alive(pid)
    assert not linked.link.running


class EndsJustNow:
    """A process of which it is not yet known that it has ended when it is told to."""

    def __init__(self) -> None:
        self.stdin = self
        self.known = asyncio.Event()

    def close(self) -> None:
        pass

    def terminate(self) -> None:
        self.known.set()
        raise ProcessLookupError

    kill = terminate

    async def wait(self) -> int:
        await self.known.wait()
        return 0


async def test_a_process_that_ends_before_it_is_told_to_is_no_error() -> None:
    await end_process(cast(Process, EndsJustNow()), 0.01)


async def test_the_real_trainer_teaches_and_ends(tmp_path: Path) -> None:
    linked = Linked()
    command = [*trainer_command(tmp_path, seed=1), "--interval", "0"]
    link = linked.link = TrainerLink(linked.models.append, command=command, stop_timeout_s=20.0)
    link.start()
    for each in rows(200, seed=0):
        link.offer(each)

    await linked.until(lambda: link.last_report is not None, timeout_s=40.0)
    pid = link.pid
    assert pid is not None
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getsid(pid) == os.getsid(0)  # or it would be as much as the router, where that counts
    assert os.getpgid(pid) == pid  # what is sent to the router's group is not for it
    await link.stop()

    assert linked.models[0].rates.by_gpu.keys() == {"A30", "V100"}
    assert not alive(pid)
    saved = load(tmp_path)
    assert saved is not None
    assert saved.version == linked.models[-1].version


async def test_a_restarted_trainer_goes_on_from_what_the_last_one_kept(tmp_path: Path) -> None:
    """Rows, model and the router's memory; across a new router, and a new trainer of the same."""

    def begin(served: PublishedModel | None) -> Linked:
        linked = Linked()
        command = [*trainer_command(tmp_path, seed=1), "--interval", "0"]
        linked.link = TrainerLink(
            linked.models.append,
            command=command,
            model=served,
            memory=lambda: b"as of now",
            backoff_s=(0.01, 0.02),
            stop_timeout_s=20.0,
        )
        linked.link.start()
        return linked

    def rows_reported(linked: Linked) -> int:
        return 0 if linked.link.last_report is None else int(linked.link.last_report["rows"])

    first = begin(None)
    for each in rows(200, seed=0):
        first.link.offer(each)
    await first.until(lambda: rows_reported(first) == 200, timeout_s=40.0)
    await first.link.stop()
    assert (tmp_path / ROUTER_FILE).read_bytes() == b"as of now"

    second = begin(load(tmp_path))
    for each in rows(50, seed=1):
        second.link.offer(each)
    await second.until(lambda: rows_reported(second) == 250, timeout_s=40.0)
    assert second.link.pid is not None
    os.kill(second.link.pid, signal.SIGKILL)
    second.link.last_report = None
    for each in rows(50, seed=2):
        second.link.offer(each)
    await second.until(lambda: rows_reported(second) == 100, timeout_s=40.0)
    await second.link.stop()

    assert second.models
    assert second.models[0].version > first.models[-1].version
