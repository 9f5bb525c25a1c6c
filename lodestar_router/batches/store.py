"""Files and batches as one place, off the event loop.

    DIRECTORY/lock            held by the router that uses the directory
    DIRECTORY/store.sqlite3   see database.py; a thread of its own
    DIRECTORY/files/          see contents.py

What was begun is ended even if its caller is cancelled: a client that leaves cannot
leave half of anything.

Errors   StorageError; ConfigError from open().
"""

import asyncio
import fcntl
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TypeVar

from msgspec.structs import replace

from lodestar_router.batches.contents import Bytes, LocalFiles, new_file_id
from lodestar_router.batches.database import Database
from lodestar_router.batches.records import BatchRecord, ConflictError, FileRecord, NotFoundError
from lodestar_router.errors import ConfigError, StorageError

_Result = TypeVar("_Result")
_AT_ONCE = 64  # answers in memory while an output file is written


def unix_s() -> int:
    """The wall clock, as OpenAI's objects have it."""
    return time.time_ns() // 1_000_000_000


class Store:
    """An open store.

    Args:
        limit_bytes: of all files together; 0 for the disk's own.
    """

    def __init__(self, directory: Path, *, limit_bytes: int = 0) -> None:
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="file store")

    async def open(self) -> None:
        """Take the directory.

        Raises:
            ConfigError: it cannot be used.
        """
        try:
            await asyncio.to_thread(self._open)
        except (StorageError, OSError) as error:
            raise ConfigError(f"--file-storage-path {self._directory}: {error}") from error

    def _open(self) -> None:
        self._contents = LocalFiles(self._directory)
        self._lock = (self._directory / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path = self._directory / "store.sqlite3"
            self._database = self._thread.submit(Database, path).result()
            self._contents.keep_only(self._now(Database.file_ids))
        except BlockingIOError as error:
            self._lock.close()
            raise StorageError("another router uses it") from error
        except BaseException:
            self._lock.close()
            raise

    async def close(self) -> None:
        """Let go of the directory, once what was begun is ended."""
        if hasattr(self, "_database"):
            await self.do(Database.close)
            self._lock.close()
        self._thread.shutdown(wait=False)

    async def do(self, function: Callable[[Database], _Result]) -> _Result:
        """Call the database in its thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(self._database))

    def _now(self, function: Callable[[Database], _Result]) -> _Result:
        """The same from another thread."""
        return self._thread.submit(lambda: function(self._database)).result()

    # files

    async def add_file(
        self, owner: str, *, filename: str, purpose: str, content: Bytes
    ) -> FileRecord:
        """Keep a file that a client gives."""
        return await asyncio.to_thread(self._add_file, owner, filename, purpose, content)

    def _add_file(self, owner: str, filename: str, purpose: str, content: Bytes) -> FileRecord:
        if self._limit_bytes and self._now(Database.file_bytes) + len(content) > self._limit_bytes:
            raise StorageError("the file store is full")
        record = self._save(owner, filename, purpose, [content])
        try:
            self._now(lambda database: database.add_file(record))
        except BaseException:
            self._contents.remove(record.file_id)
            raise
        return record

    def _save(self, owner: str, filename: str, purpose: str, pieces: Iterable[Bytes]) -> FileRecord:
        file_id = new_file_id()
        size_bytes = self._contents.save(file_id, pieces)
        return FileRecord(
            file_id=file_id,
            owner=owner,
            filename=filename,
            purpose=purpose,
            size_bytes=size_bytes,
            created_at=unix_s(),
        )

    async def file(self, file_id: str, owner: str) -> FileRecord:
        """The owner's file.

        Raises:
            NotFoundError: there is none.
        """
        record = await self.do(lambda database: database.file(file_id, owner))
        if record is None:
            raise NotFoundError("no such file")
        return record

    async def open_file(self, record: FileRecord) -> BinaryIO:
        """Its content, to be read and closed off the loop."""
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(None, self._contents.open, record.file_id)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close)  # the thread opens it all the same
            raise

    async def remove_file(self, file_id: str, owner: str) -> None:
        """Delete a file.

        Raises:
            NotFoundError: there is none.
            ConflictError: a batch that is not finished reads it.
        """
        await self.file(file_id, owner)
        user = await self.do(lambda database: database.user_of(file_id))
        if user is not None:
            raise ConflictError(f"{user} still reads this file: cancel it first")
        await self.do(lambda database: database.remove_file(file_id))
        await asyncio.to_thread(self._contents.remove, file_id)

    # batches

    async def batch(self, batch_id: str, owner: str) -> BatchRecord:
        """The owner's batch, with its counts of now.

        Raises:
            NotFoundError: there is none.
        """
        record = await self.do(lambda database: database.batch(batch_id, owner))
        if record is None:
            raise NotFoundError("no such batch")
        return record

    async def finish(self, record: BatchRecord, unanswered: Iterable[bytes] = ()) -> BatchRecord:
        """Write the files of a batch and let it end as `record` says; all of it or nothing.

        Args:
            unanswered: lines for the error file beside the answers that are kept.
        """
        return await asyncio.to_thread(self._finish, record, iter(unanswered))

    def _finish(self, record: BatchRecord, unanswered: Iterator[bytes]) -> BatchRecord:
        outputs: list[FileRecord] = []
        try:
            output = self._output(record, "output", self._answers(record, ok=True), outputs)
            failed = chain(self._answers(record, ok=False), unanswered)
            error = self._output(record, "error", failed, outputs)
            counts = self._now(lambda db: db.counts(record.batch_id, record.counts.total))
            ended = replace(record, counts=counts, output_file_id=output, error_file_id=error)
            self._now(lambda db: db.finish(ended, outputs))
        except BaseException:
            for made in outputs:
                self._contents.remove(made.file_id)
            raise
        return ended

    def _output(
        self, record: BatchRecord, kind: str, lines: Iterator[bytes], outputs: list[FileRecord]
    ) -> str | None:
        first = next(lines, None)
        if first is None:
            return None
        name = f"{record.batch_id}_{kind}.jsonl"
        outputs.append(self._save(record.owner, name, "batch_output", chain([first], lines)))
        return outputs[-1].file_id

    def _answers(self, record: BatchRecord, *, ok: bool) -> Iterator[bytes]:
        """In the order of the input."""
        read = partial(Database.answers, batch_id=record.batch_id, ok=ok, limit=_AT_ONCE)
        after = 0
        while rows := self._now(partial(read, after=after)):
            for _, answer in rows:
                yield answer + b"\n"
            after = rows[-1][0]


def _close(opening: "asyncio.Future[BinaryIO]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
