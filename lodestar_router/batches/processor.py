"""Takes batches from their input to their output, and goes on where an earlier process ended.

In       batches, as the store has them.
Out      their files and states; answers as they come.
Cost     one task per unfinished batch, one more per line under way.
Errors   none: trouble with the store is logged and tried again, so a full disk stops a batch
         and loses nothing of it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import BinaryIO, TypeVar

from msgspec.structs import replace

from lodestar_router.batches.answers import failed
from lodestar_router.batches.line_runner import LineRunner
from lodestar_router.batches.lines import Line, check, read_lines
from lodestar_router.batches.records import (
    BatchRecord,
    Counts,
    LineError,
    NotFoundError,
    Status,
)
from lodestar_router.batches.store import Store, unix_s
from lodestar_router.errors import StorageError
from lodestar_router.tasks import cancel, spawn

_logger = logging.getLogger(__name__)

_STORE_AGAIN_S = 5.0
_BUG = LineError("internal_error", "the router failed; answers until then are in the output")
_EXPIRED = ("batch_expired", "the batch's completion window ended before this line was answered")


_Kept = TypeVar("_Kept")


class _Job:
    """A batch that runs."""

    def __init__(self, record: BatchRecord) -> None:
        self.record = record
        self.stopped = asyncio.Event()  # its lines are to end: it is being cancelled


class Processor:
    """Runs all batches.

    Args:
        most_bytes: of one line.
    """

    def __init__(
        self,
        store: Store,
        runner: LineRunner,
        *,
        most_bytes: int,
        store_again_s: float = _STORE_AGAIN_S,
    ) -> None:
        self._store = store
        self._runner = runner
        self._most_bytes = most_bytes
        self._store_again_s = store_again_s
        self._jobs: dict[str, _Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def unfinished(self) -> int:
        """Batches under way."""
        return len(self._jobs)

    async def start(self) -> None:
        """Go on with what an earlier process left."""
        for record in await self._store.do(lambda database: database.unfinished()):
            _logger.info("batch %s: going on, %s", record.batch_id, record.status.value)
            self.begin(record)

    async def stop(self) -> None:
        """End; lines under way are cut and will be run by the next process."""
        await cancel(*self._tasks.values())

    def begin(self, record: BatchRecord) -> None:
        """Run a batch that the store has."""
        self._jobs[record.batch_id] = _Job(record)
        if record.status is Status.CANCELLING:
            self._jobs[record.batch_id].stopped.set()
        self._tasks[record.batch_id] = spawn(
            self._run(self._jobs[record.batch_id]), name=f"batch {record.batch_id}"
        )

    async def cancel(self, batch_id: str) -> bool:
        """Let a batch end early; False if it has ended or is about to."""
        job = self._jobs.get(batch_id)
        if job is None or job.record.status is Status.FINALIZING:
            return False
        if not job.stopped.is_set():
            job.stopped.set()
            job.record = replace(job.record, status=Status.CANCELLING, cancelling_at=unix_s())
            await self._store.do(lambda database: database.change_batch(job.record))
        return True

    async def _run(self, job: _Job) -> None:
        batch_id = job.record.batch_id
        try:
            await self._advance(job)
            _logger.info("batch %s: %s", batch_id, job.record.status.value)
        except Exception:  # an edge: a batch that cannot go on must not look as if it did
            _logger.exception("batch %s failed in the router", batch_id)
            failed_record = replace(
                job.record, status=Status.FAILED, failed_at=unix_s(), errors=(_BUG,)
            )
            await self._stored(lambda: self._store.finish(failed_record))
        finally:
            del self._jobs[batch_id]
            del self._tasks[batch_id]

    async def _advance(self, job: _Job) -> None:
        """From whatever state the batch is in to its end."""
        if job.record.status is Status.VALIDATING and not await self._validate(job):
            return
        expired = False
        if job.record.status in (Status.VALIDATING, Status.IN_PROGRESS):
            expired = not await self._answer_all(job)
        await self._finish(job, expired=expired)

    async def _validate(self, job: _Job) -> bool:
        """Check the input; False if the batch has failed."""
        total, errors = await self._stored(lambda: self._check(job.record))
        if job.stopped.is_set():
            job.record = replace(job.record, counts=Counts(total))
            return True
        now = unix_s()
        if errors:
            await self._change(
                job,
                replace(job.record, status=Status.FAILED, failed_at=now, errors=errors),
            )
            return False
        await self._change(
            job,
            replace(
                job.record, status=Status.IN_PROGRESS, in_progress_at=now, counts=Counts(total)
            ),
        )
        return True

    async def _check(self, record: BatchRecord) -> tuple[int, tuple[LineError, ...]]:
        try:
            file = await self._open_input(record)
        except NotFoundError:
            return 0, (LineError("file_not_found", "the input file is not there any more"),)
        with file:
            return await asyncio.to_thread(check, file, record.endpoint, self._most_bytes)

    async def _answer_all(self, job: _Job) -> bool:
        """Run the lines that have no answer yet; False if there was not enough time."""
        lines = spawn(self._answer_lines(job.record), name=f"lines of {job.record.batch_id}")
        stopped = spawn(job.stopped.wait(), name=f"stop of {job.record.batch_id}")
        left_s = max(job.record.expires_at - unix_s(), 0)
        try:
            done, _ = await asyncio.wait(
                (lines, stopped), timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            if lines in done:
                lines.result()
            return bool(done)
        finally:
            await cancel(lines, stopped)

    async def _answer_lines(self, record: BatchRecord) -> None:
        answered = await self._stored(
            lambda: self._store.do(lambda database: database.answered(record.batch_id))
        )
        window = asyncio.Semaphore(self._runner.concurrency)
        with await self._stored(lambda: self._open_input(record)) as file:
            unanswered = read_lines(file, answered, self._most_bytes)
            async with asyncio.TaskGroup() as group:
                while (line := await asyncio.to_thread(next, unanswered, None)) is not None:
                    await window.acquire()
                    task = group.create_task(self._answer_line(record, line))
                    task.add_done_callback(lambda _: window.release())

    async def _answer_line(self, record: BatchRecord, line: Line) -> None:
        request_id = f"{record.batch_id}-{line.number}"
        ok, answer = await self._runner.run(record.endpoint, request_id, line)
        await self._stored(
            lambda: self._store.do(
                lambda database: database.add_answer(
                    record.batch_id, line.number, ok=ok, answer=answer
                )
            )
        )

    async def _finish(self, job: _Job, *, expired: bool) -> None:
        now = unix_s()
        if not job.stopped.is_set() and job.record.status is not Status.FINALIZING:
            await self._change(
                job,
                replace(
                    job.record,
                    status=Status.FINALIZING,
                    finalizing_at=now,
                    expired_at=now if expired else None,
                ),
            )
        record = job.record
        if job.stopped.is_set():
            ended = replace(record, status=Status.CANCELLED, cancelled_at=unix_s())
        elif record.expired_at is not None:
            ended = replace(record, status=Status.EXPIRED)
        else:
            ended = replace(record, status=Status.COMPLETED, completed_at=unix_s())
        job.record = await self._stored(lambda: self._write(ended))

    async def _write(self, ended: BatchRecord) -> BatchRecord:
        if ended.status is not Status.EXPIRED:
            return await self._store.finish(ended)
        answered = await self._store.do(lambda database: database.answered(ended.batch_id))
        with await self._open_input(ended) as file:
            return await self._store.finish(ended, self._expired_lines(file, answered))

    def _expired_lines(self, file: BinaryIO, answered: set[int]) -> Iterator[bytes]:
        for line in read_lines(file, answered, self._most_bytes):
            yield failed(line.custom_id, *_EXPIRED) + b"\n"

    async def _open_input(self, record: BatchRecord) -> BinaryIO:
        file = await self._store.file(record.input_file_id, record.owner)
        return await self._store.open_file(file)

    async def _change(self, job: _Job, record: BatchRecord) -> None:
        job.record = record
        await self._stored(
            lambda: self._store.do(lambda database: database.change_batch(job.record))
        )

    async def _stored(self, attempt: Callable[[], Awaitable[_Kept]]) -> _Kept:
        """What the store answers, once it can."""
        told = ""
        while True:
            try:
                return await attempt()
            except StorageError as error:
                if str(error) != told:
                    told = str(error)
                    _logger.error("a batch waits for the file store: %s", told)
                await asyncio.sleep(self._store_again_s)
