import numpy as np
import pytest

from lodestar_router.core.types import replace
from lodestar_router.learning.checkpoint import CheckpointError, seal
from lodestar_router.learning.row_file import KIND, decode_row_file
from lodestar_router.learning.trainer import Trainer
from tests.learning.traffic import rows


def taught(count: int, seed: int = 0) -> Trainer:
    trainer = Trainer(0, lambda: 0.0)
    for each in rows(count, seed):
        trainer.add(each)
    return trainer


def test_rows_come_back_as_they_were() -> None:
    told = list(rows(50, 0))
    told[7] = replace(told[7], censored=True)
    trainer = Trainer(0, lambda: 0.0)
    for each in told:
        trainer.add(each)

    older, recent = decode_row_file(trainer.dump())

    assert not older
    assert [row.gpu for row in recent] == [row.gpu for row in told]
    assert [row.ttft_s for row in recent] == [row.ttft_s for row in told]
    assert [row.work_tokens for row in recent] == [row.work_tokens for row in told]
    assert [row.censored for row in recent] == [row.censored for row in told]
    assert all((a.features == b.features).all() for a, b in zip(recent, told, strict=True))


def test_a_trainer_goes_on_from_the_rows_of_another() -> None:
    first = taught(5000)
    second = Trainer(1, lambda: 0.0)

    recalled = second.recall(first.dump(), older_only=False)
    report, published = second.learn_many()

    assert recalled == 5000
    assert report.rows == 5000
    assert published is not None
    older, recent = decode_row_file(second.dump())
    assert (len(older), len(recent)) == (5000 - 4096, 4096)


def test_only_the_reservoir_is_recalled_where_the_window_comes_again() -> None:
    second = Trainer(1, lambda: 0.0)

    assert second.recall(taught(5000).dump(), older_only=True) == 5000 - 4096
    assert second.new_rows == 0


def test_rows_that_are_recalled_are_not_judged_again() -> None:
    second = Trainer(1, lambda: 0.0)
    second.recall(taught(200).dump(), older_only=False)

    report, _ = second.learn_many()

    assert np.isnan(report.live_error)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"", "not a file of rows", id="empty"),
        pytest.param(seal("router-1", b"{}"), "not a file of rows", id="another-file"),
        pytest.param(taught(3).dump()[:-3], "digest", id="cut-short"),
        pytest.param(seal(KIND, b"\x00"), "malformed", id="no-header"),
        pytest.param(
            seal(KIND, b'\x15\x00\x00\x00{"schema_version": 0}'), "schema 0", id="another-schema"
        ),
        pytest.param(
            seal(KIND, b'\x2c\x00\x00\x00{"schema_version": 2, "gpus": [], "older":0}abc'),
            "malformed",
            id="half-a-row",
        ),
    ],
)
def test_what_is_no_such_file_is_refused(data: bytes, why: str) -> None:
    trainer = taught(10)

    with pytest.raises(CheckpointError, match=why):
        trainer.recall(data, older_only=False)

    assert trainer.new_rows == 10


def test_it_is_small() -> None:
    assert len(taught(1000).dump()) < 120_000
