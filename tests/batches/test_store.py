"""What the store keeps, refuses, and leaves behind when it cannot."""

import asyncio
import resource
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from lodestar_router.batches.contents import LocalFiles, new_file_id
from lodestar_router.batches.records import BatchRecord, ConflictError, NotFoundError, Status
from lodestar_router.batches.store import Store
from lodestar_router.errors import ConfigError, StorageError
from lodestar_router.tasks import spawn
from tests.emulator.server_rig import until


@asynccontextmanager
async def opened(directory: Path, limit_bytes: int = 0) -> AsyncIterator[Store]:
    store = Store(directory, limit_bytes=limit_bytes)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def no_file_beyond(size_bytes: int) -> Iterator[None]:
    """A disk that is full after so many bytes of any one file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def batch(file_id: str, status: Status, number: int = 0) -> BatchRecord:
    return BatchRecord(
        batch_id=f"batch_{number}", owner="a", endpoint="/v1/completions", input_file_id=file_id,
        completion_window="24h", status=status, created_at=1, expires_at=2,
    )  # fmt: skip


async def test_a_file_whose_reader_left_while_it_was_opened_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    files: list[BinaryIO] = []
    open_file = LocalFiles.open

    def open_slowly(contents: LocalFiles, file_id: str) -> BinaryIO:
        begun.set()
        go_on.wait()
        files.append(open_file(contents, file_id))
        return files[-1]

    monkeypatch.setattr(LocalFiles, "open", open_slowly)
    async with opened(tmp_path) as store:
        record = await store.add_file("a", filename="x", purpose="batch", content=b"hello")
        reader = spawn(store.open_file(record), name="reader")
        await asyncio.to_thread(begun.wait)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        go_on.set()
        await until(lambda: bool(files) and files[0].closed)


async def test_files_and_batches_outlive_the_process(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        record = await store.add_file("a", filename="x", purpose="batch", content=b"hello")
        await store.do(lambda db: db.add_batch(batch(record.file_id, Status.IN_PROGRESS)))
        await store.do(lambda db: db.add_answer("batch_0", 3, ok=True, answer=b"{}"))

    async with opened(tmp_path) as store:
        assert await store.file(record.file_id, "a") == record
        with await store.open_file(record) as file:
            assert file.read() == b"hello"
        assert await store.do(lambda db: db.answered("batch_0")) == {3}
        assert (await store.batch("batch_0", "a")).counts.completed == 1
    assert (tmp_path / "files").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "file_id", ["../../etc/passwd", "file-0", "", "%2e%2e", "file-" + "0" * 24, "' OR 1=1 --"]
)
async def test_ids_that_were_not_made_here_lead_nowhere(tmp_path: Path, file_id: str) -> None:
    async with opened(tmp_path) as store:
        await store.add_file("a", filename="x", purpose="p", content=b"hello")

        with pytest.raises(NotFoundError):
            await store.file(file_id, "a")


def test_no_path_is_made_of_an_id_of_another_form(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)

    for file_id in ("../lock", "/etc/passwd", "file-" + "G" * 24, new_file_id() + "/x"):
        with pytest.raises(ValueError, match="not made here"):
            files.open(file_id)


async def test_another_owner_s_file_is_not_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        record = await store.add_file("a", filename="x", purpose="p", content=b"hello")

        for owner in ("b", ""):
            with pytest.raises(NotFoundError):
                await store.file(record.file_id, owner)
            with pytest.raises(NotFoundError):
                await store.remove_file(record.file_id, owner)


async def test_a_full_disk_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        kept = await store.add_file("a", filename="x", purpose="p", content=b"hello")
        with no_file_beyond(300_000), pytest.raises(StorageError, match="full"):
            await store.add_file("a", filename="y", purpose="p", content=b"y" * 400_000)

        assert [path.name for path in (tmp_path / "files").iterdir()] == [kept.file_id]
        listed = await store.do(
            lambda db: db.files("a", after="", limit=9, newest_first=True, purpose="")
        )
        assert listed == [kept]
        after = await store.add_file("a", filename="y", purpose="p", content=b"y" * 400_000)
        assert after.size_bytes == 400_000


async def test_a_full_database_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.do(lambda db: db.add_batch(batch("file-1", Status.IN_PROGRESS)))
        with no_file_beyond(200_000), pytest.raises(StorageError):
            await store.do(lambda db: db.add_answer("batch_0", 1, ok=True, answer=b"x" * 300_000))

        assert await store.do(lambda db: db.answered("batch_0")) == set()
        await store.do(lambda db: db.add_answer("batch_0", 1, ok=True, answer=b"x" * 300_000))
        assert await store.do(lambda db: db.answered("batch_0")) == {1}


async def test_outputs_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        running = batch("file-1", Status.FINALIZING)
        await store.do(lambda db: db.add_batch(running))
        for number, ok in ((1, True), (2, False), (3, True)):
            answer = b"%d" % number * (1000 if ok else 150_000)
            await store.do(
                lambda db, n=number, ok=ok, answer=answer: db.add_answer(  # type: ignore[misc]
                    "batch_0", n, ok=ok, answer=answer
                )
            )
        with no_file_beyond(100_000), pytest.raises(StorageError, match="full"):
            await store.finish(running)  # the second of its files does not fit

        assert list((tmp_path / "files").iterdir()) == []
        assert await store.do(lambda db: db.answered("batch_0")) == {1, 2, 3}
        ended = await store.finish(running)
        assert (ended.counts.completed, ended.counts.failed) == (2, 1)
        assert ended.output_file_id is not None
        with await store.open_file(await store.file(ended.output_file_id, "a")) as file:
            assert file.read() == b"1" * 1000 + b"\n" + b"3" * 1000 + b"\n"
        assert await store.do(lambda db: db.answered("batch_0")) == set()


async def test_all_files_together_have_a_limit(tmp_path: Path) -> None:
    async with opened(tmp_path, limit_bytes=1000) as store:
        first = await store.add_file("a", filename="x", purpose="p", content=b"x" * 600)
        with pytest.raises(StorageError, match="full"):
            await store.add_file("b", filename="x", purpose="p", content=b"x" * 600)

        await store.remove_file(first.file_id, "a")
        await store.add_file("b", filename="x", purpose="p", content=b"x" * 600)


async def test_a_file_that_a_batch_reads_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        record = await store.add_file("a", filename="x", purpose="p", content=b"x")
        running = batch(record.file_id, Status.IN_PROGRESS)
        await store.do(lambda db: db.add_batch(running))
        with pytest.raises(ConflictError, match="batch_0"):
            await store.remove_file(record.file_id, "a")

        await store.do(lambda db: db.change_batch(batch(record.file_id, Status.COMPLETED)))
        await store.remove_file(record.file_id, "a")
        assert list((tmp_path / "files").iterdir()) == []


async def test_what_a_killed_process_left_half_done_is_removed(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        kept = await store.add_file("a", filename="x", purpose="p", content=b"x")
    for name in (new_file_id(), new_file_id() + ".part", kept.file_id + ".part", "README"):
        (tmp_path / "files" / name).write_bytes(b"left")

    async with opened(tmp_path):
        left = {path.name for path in (tmp_path / "files").iterdir()}

    assert left == {kept.file_id, "README"}


async def test_two_routers_cannot_use_one_directory(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(ConfigError, match="another router uses it"):
            await Store(tmp_path).open()


async def test_a_store_of_another_version_is_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "store.sqlite3") as sql:
        sql.execute("PRAGMA user_version = 7")
    sql.close()

    with pytest.raises(ConfigError, match="version 7"):
        await Store(tmp_path).open()


async def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="--file-storage-path"):
        await Store(tmp_path / "file" / "below").open()


async def test_lists_go_on_where_they_ended(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        made = [
            await store.add_file("a", filename=str(n), purpose="p" if n % 2 else "q", content=b"")
            for n in range(5)
        ]
        await store.add_file("b", filename="theirs", purpose="p", content=b"")

        async def names(after: str, *, newest_first: bool, purpose: str = "") -> list[str]:
            records = await store.do(
                lambda db: db.files(
                    "a", after=after, limit=2, newest_first=newest_first, purpose=purpose
                )
            )
            return [record.filename for record in records]

        assert await names("", newest_first=True) == ["4", "3"]
        assert await names(made[3].file_id, newest_first=True) == ["2", "1"]
        assert await names(made[3].file_id, newest_first=False) == ["4"]
        assert await names("", newest_first=False, purpose="p") == ["1", "3"]
