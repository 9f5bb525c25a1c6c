"""Disks that are full, read-only or hold rubbish: one warning, and work goes on."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lodestar_router.learning.checkpoint import FILE_NAME, CheckpointError, load
from lodestar_router.trainer.keeper import ROUTER_FILE, ROWS_FILE, ROWS_INTERVAL_S, Keeper
from tests.features.models import model

ROOT = Path(__file__).resolve().parents[2]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_models_and_memory_are_kept_at_once_and_rows_now_and_then(tmp_path: Path) -> None:
    clock = Clock()
    keeper = Keeper(tmp_path / "state", clock)

    keeper.model(model(version=3))
    keeper.router(b"memory")
    keeper.rows(lambda: b"early")
    assert sorted(os.listdir(tmp_path / "state")) == [FILE_NAME, ROUTER_FILE]
    clock.now_s = ROWS_INTERVAL_S
    keeper.rows(lambda: b"in time")
    keeper.rows(lambda: b"early again")

    assert (tmp_path / "state" / ROWS_FILE).read_bytes() == b"in time"
    assert (tmp_path / "state" / ROUTER_FILE).read_bytes() == b"memory"
    keeper.rows(lambda: b"at the end", at_once=True)
    assert (tmp_path / "state" / ROWS_FILE).read_bytes() == b"at the end"


def test_without_a_directory_nothing_is_done() -> None:
    keeper = Keeper(None, Clock())

    keeper.model(model())
    keeper.rows(lambda: b"", at_once=True)
    keeper.recall_rows(lambda data: pytest.fail("there is nothing to recall"))


def test_rows_that_cannot_be_used_are_set_aside_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ROWS_FILE).write_bytes(b"rubbish")

    def refuse(data: bytes) -> int:
        raise CheckpointError("not a file of rows-1")

    keeper = Keeper(tmp_path, Clock())
    keeper.recall_rows(refuse)
    keeper.recall_rows(refuse)

    assert len(caplog.records) == 1
    assert f"{ROWS_FILE}: not a file of rows-1" in caplog.text
    assert os.listdir(tmp_path) == [ROWS_FILE + ".bad"]


# A process of its own: limits and uids are not taken back.
_SCRIPT = """
import json, logging, os, resource, signal, sys
from pathlib import Path
from lodestar_router.trainer.keeper import Keeper
from tests.features.models import model

directory, how = Path(sys.argv[1]), sys.argv[2]
lines = []
class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
logging.getLogger().addHandler(Lines())
logging.getLogger().setLevel(logging.INFO)
keeper = Keeper(directory, lambda: 0.0)
models = [model(version=number + 2) for number in range(5)]
if how == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
elif how == "uid":
    os.setgid(65534)
    os.setuid(65534)
for each in models:
    keeper.model(each)
    keeper.rows(lambda: b"x" * 100_000, at_once=True)
first = list(lines)
if how == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    keeper.model(model(version=99))
print(json.dumps({"while": first, "after": lines[len(first):]}))
"""


def keep(directory: Path, how: str) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(directory), how],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    said: dict[str, list[str]] = json.loads(done.stdout)
    return said


def test_a_disk_with_no_room_costs_one_warning_and_the_last_file_stays(tmp_path: Path) -> None:
    Keeper(tmp_path, Clock()).model(model(version=1))

    said = keep(tmp_path, "limit")

    assert len(said["while"]) == 1
    assert "File too large; what is learned stays in memory" in said["while"][0]
    assert said["after"] == [f"{tmp_path} can be written to again"]
    saved = load(tmp_path)
    assert saved is not None
    assert saved.version == 99
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_a_full_file_system_costs_one_warning(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        (disk / "other").write_bytes(b"x" * 60_000)
        said = keep(disk, "as it is")
        left = os.listdir(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)

    assert len(said["while"]) == 1
    assert "No space left on device" in said["while"][0]
    assert set(left) <= {"other", FILE_NAME}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_read_only_directory_costs_one_warning() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to others
        os.chmod(name, 0o755)

        said = keep(Path(name), "uid")

        left = os.listdir(name)

    assert len(said["while"]) == 1
    assert "Permission denied; what is learned stays in memory" in said["while"][0]
    assert left == []
