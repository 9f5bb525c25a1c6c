import errno
import os
from pathlib import Path

import pytest

from lodestar_router.learning.checkpoint import FILE_NAME, CheckpointError, load, save
from tests.features.models import model


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save(model(version=1), tmp_path / "new")
    save(model(version=2), tmp_path / "new")

    loaded = load(tmp_path / "new")

    assert loaded is not None
    assert loaded.version == 2
    assert os.listdir(tmp_path / "new") == [FILE_NAME], "no temporary file is left"


def test_nothing_saved_yet_is_no_error(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    assert load(tmp_path / "missing") is None


@pytest.mark.parametrize("rubbish", [b"", b"PK\x03\x04zip", b"\x80\x04K\x01.", b"{}"], ids=repr)
def test_rubbish_is_refused_with_its_path(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(rubbish)

    with pytest.raises(CheckpointError, match=f"{FILE_NAME} is not usable"):
        load(tmp_path)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = save(model(), tmp_path)
    path.write_bytes(path.read_bytes()[:-5])

    with pytest.raises(CheckpointError, match="digest"):
        load(tmp_path)


def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(model(version=1), tmp_path)

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save(model(version=2), tmp_path)

    kept = load(tmp_path)
    assert kept is not None
    assert kept.version == 1
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_a_state_dir_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")

    with pytest.raises(CheckpointError, match=r"cannot save .*state"):
        save(model(), tmp_path / "state")
    with pytest.raises(CheckpointError, match=r"cannot read .*state"):
        load(tmp_path / "state")
