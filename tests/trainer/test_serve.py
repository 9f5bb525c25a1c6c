import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lodestar_router.features.model_codec import decode_model, encode_model
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.serving import PublishedModel
from lodestar_router.learning.checkpoint import CheckpointError, load
from lodestar_router.trainer.serve import ServeOptions, TrainerLoop
from lodestar_router.trainer.wire import FrameReader, Kind, decode_report, encode_rows, frame
from tests.features.models import model, row


@dataclass
class Report:
    rows: int


@dataclass
class FakeLearner:
    """Publishes a version at every round."""

    served: PublishedModel | None
    rows: list[TrainingRow] = field(default_factory=list)
    new_rows: int = 0

    def add(self, row: TrainingRow) -> None:
        self.rows.append(row)
        self.new_rows += 1

    def learn_many(self) -> tuple[object, PublishedModel | None]:
        self.new_rows = 0
        version = 0 if self.served is None else self.served.version
        self.served = model(version=version + 1)
        return Report(len(self.rows)), self.served

    def dump(self) -> bytes:
        return f"{len(self.rows)} rows".encode()

    def recall(self, data: bytes, *, older_only: bool) -> int:
        if b"rows" not in data:
            raise CheckpointError("not rows")
        self.rows = [row()] * (1 if older_only else int(data.split()[0]))
        return len(self.rows)


class Served:
    """A trainer loop on real pipes, in a thread; this side plays the router."""

    def __init__(self, options: ServeOptions) -> None:
        their_in, self.to_trainer = os.pipe()
        self.from_trainer, their_out = os.pipe()
        loop = TrainerLoop(their_in, their_out, FakeLearner, options)
        self._fds = {their_in, their_out, self.to_trainer, self.from_trainer}
        self._thread = threading.Thread(target=loop.run, daemon=True)
        self._thread.start()
        self._frames = FrameReader()
        self._received: list[tuple[Kind, bytes]] = []

    def send(self, *frames: bytes) -> None:
        for data in frames:
            os.write(self.to_trainer, data)

    def receive(self, kind: Kind) -> bytes:
        """The next frame of that kind; those before it are passed over."""
        while True:
            while self._received:
                found, payload = self._received.pop(0)
                if found is kind:
                    return payload
            assert select.select([self.from_trainer], [], [], 10)[0], f"no {kind.name} came"
            self._received += self._frames.feed(os.read(self.from_trainer, 1 << 16))

    def hang_up(self, fd: int) -> None:
        os.close(fd)
        self._fds.remove(fd)

    def ended(self) -> bool:
        self._thread.join(timeout=10)
        return not self._thread.is_alive()

    def close(self) -> None:
        if self.to_trainer in self._fds:
            self.hang_up(self.to_trainer)
        assert self.ended()
        for fd in list(self._fds):
            self.hang_up(fd)


Start = Callable[..., Served]


@pytest.fixture
def start() -> Iterator[Start]:
    running = []

    def begin(*, min_new_rows: int = 10, state_dir: Path | None = None) -> Served:
        options = ServeOptions(interval_s=0.0, min_new_rows=min_new_rows, state_dir=state_dir)
        running.append(Served(options))
        return running[-1]

    yield begin
    for served in running:
        served.close()


ROWS = frame(Kind.ROWS, encode_rows([row()] * 10))


def test_enough_rows_give_a_model_and_a_report(start: Start) -> None:
    served = start()

    served.send(ROWS)

    assert decode_model(served.receive(Kind.MODEL)).version == 1
    assert decode_report(served.receive(Kind.REPORT)) == {"rows": 10}


def test_it_waits_until_there_are_enough_rows(start: Start) -> None:
    served = start(min_new_rows=25)

    served.send(ROWS, ROWS, ROWS)

    assert decode_report(served.receive(Kind.REPORT)) == {"rows": 30}


def test_it_goes_on_from_the_router_s_model(start: Start) -> None:
    served = start()

    served.send(frame(Kind.MODEL, encode_model(model(version=41))), ROWS)

    assert decode_model(served.receive(Kind.MODEL)).version == 42


def test_a_version_is_on_disk_when_its_report_arrives(start: Start, tmp_path: Path) -> None:
    served = start(state_dir=tmp_path)

    served.send(ROWS)
    served.receive(Kind.REPORT)

    saved = load(tmp_path)
    assert saved is not None
    assert saved.version == 1


def test_a_checkpoint_that_cannot_be_saved_does_not_stop_it(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file where a directory should be")
    served = start(state_dir=tmp_path / "state")

    served.send(ROWS)
    served.receive(Kind.REPORT)
    served.send(ROWS)

    assert decode_model(served.receive(Kind.MODEL)).version == 2
    assert "cannot save" in caplog.text


def test_it_ends_when_the_router_closes_the_pipe(start: Start) -> None:
    served = start()
    served.send(ROWS)

    served.hang_up(served.to_trainer)

    assert served.ended()


def test_it_ends_when_the_router_reads_no_more(start: Start) -> None:
    served = start()
    served.hang_up(served.from_trainer)

    served.send(ROWS)

    assert served.ended()


def test_it_ends_when_told_to(start: Start) -> None:
    served = start()

    served.send(frame(Kind.STOP))

    assert served.ended()


def test_a_stray_print_does_not_reach_the_frames() -> None:
    code = (
        "import os\n"
        "from lodestar_router.trainer.serve import claim_stdout\n"
        "fd = claim_stdout()\n"
        "print('stray', flush=True)\n"
        "os.system('echo stray from a child')\n"
        "os.write(fd, b'frames')\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)

    assert done.stdout == b"frames"
    assert done.stderr.count(b"stray") == 2
