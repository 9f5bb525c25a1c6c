"""What is known of files and batches, and the answers of batches under way: one SQLite file.

In       records, answers. All calls from one thread.
Out      the same again. An answer is kept before it counts, so nothing is answered twice.
Cost     0.1 ms a call; write-ahead log, synced at checkpoints: a killed process loses
         nothing, a machine that loses power the last answers, which are then computed anew.
Errors   StorageError, after which everything is as before the call.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from lodestar_router.batches.records import UNFINISHED, BatchRecord, Counts, FileRecord
from lodestar_router.errors import StorageError

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    purpose TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    record BLOB NOT NULL
);
CREATE TABLE batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    input_file_id TEXT NOT NULL,
    record BLOB NOT NULL
);
CREATE TABLE answers (
    batch TEXT NOT NULL,
    line INTEGER NOT NULL,
    ok INTEGER NOT NULL,
    answer BLOB NOT NULL,
    PRIMARY KEY (batch, line)
);
"""
_OPEN = ", ".join(f"'{status.value}'" for status in UNFINISHED)

_encode = msgspec.json.encode
_file = msgspec.json.Decoder(FileRecord).decode
_batch = msgspec.json.Decoder(BatchRecord).decode


class Database:
    """The open file."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it.

        Raises:
            StorageError: it cannot be read, or another version made it.
        """
        with _translated():
            self._sql = sqlite3.connect(path, isolation_level=None)
            self._sql.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before there are tables
            self._sql.execute("PRAGMA journal_mode = WAL")
            self._sql.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._sql.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._sql.executescript(
                    f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;"
                )
            elif version != _SCHEMA_VERSION:
                self._sql.close()
                raise StorageError(f"the file store is of version {version}, not 1")

    def close(self) -> None:
        """Close it."""
        self._sql.close()

    @contextmanager
    def _all_or_nothing(self) -> Iterator[sqlite3.Connection]:
        with _translated():
            self._sql.execute("BEGIN IMMEDIATE")
            try:
                yield self._sql
                self._sql.execute("COMMIT")
            except BaseException:
                if self._sql.in_transaction:
                    self._sql.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with _translated():
            return self._sql.execute(query, values).fetchall()

    # files

    def add_file(self, record: FileRecord) -> None:
        """Keep a new file's record."""
        with self._all_or_nothing() as sql:
            _insert_file(sql, record)

    def file(self, file_id: str, owner: str) -> FileRecord | None:
        """The owner's file; None if there is none."""
        rows = self._rows("SELECT record FROM files WHERE id = ? AND owner = ?", file_id, owner)
        return _file(rows[0][0]) if rows else None

    def files(
        self, owner: str, *, after: str, limit: int, newest_first: bool, purpose: str
    ) -> list[FileRecord]:
        """Up to `limit` files, from behind `after` on."""
        where = "owner = ? AND (? = '' OR purpose = ?)"
        rows = self._page("files", where, (owner, purpose, purpose), after, limit, newest_first)
        return [_file(row[0]) for row in rows]

    def file_ids(self) -> set[str]:
        """All of them."""
        return {row[0] for row in self._rows("SELECT id FROM files")}

    def file_bytes(self) -> int:
        """The sizes of all files, in sum."""
        return int(self._rows("SELECT coalesce(sum(size_bytes), 0) FROM files")[0][0])

    def remove_file(self, file_id: str) -> None:
        """Forget a file."""
        with self._all_or_nothing() as sql:
            sql.execute("DELETE FROM files WHERE id = ?", (file_id,))

    def user_of(self, file_id: str) -> str | None:
        """An unfinished batch that reads the file; None if none does."""
        rows = self._rows(
            f"SELECT id FROM batches WHERE input_file_id = ? AND status IN ({_OPEN})", file_id
        )
        return rows[0][0] if rows else None

    # batches

    def add_batch(self, record: BatchRecord) -> None:
        """Keep a new batch."""
        with self._all_or_nothing() as sql:
            sql.execute(
                "INSERT INTO batches (id, owner, status, input_file_id, record) "
                "VALUES (?, ?, ?, ?, ?)",
                (record.batch_id, record.owner, record.status.value, record.input_file_id,
                 _encode(record)),
            )  # fmt: skip

    def change_batch(self, record: BatchRecord) -> None:
        """The batch is now this."""
        with self._all_or_nothing() as sql:
            _update_batch(sql, record)

    def batch(self, batch_id: str, owner: str) -> BatchRecord | None:
        """The owner's batch with its counts of now; None if there is none."""
        rows = self._rows("SELECT record FROM batches WHERE id = ? AND owner = ?", batch_id, owner)
        return self._counted(_batch(rows[0][0])) if rows else None

    def batches(self, owner: str, *, after: str, limit: int) -> list[BatchRecord]:
        """Up to `limit` batches, newest first, from behind `after` on."""
        rows = self._page("batches", "owner = ?", (owner,), after, limit, True)
        return [self._counted(_batch(row[0])) for row in rows]

    def _counted(self, record: BatchRecord) -> BatchRecord:
        if record.status not in UNFINISHED:
            return record
        return replace(record, counts=self.counts(record.batch_id, record.counts.total))

    def unfinished(self, owner: str | None = None) -> list[BatchRecord]:
        """Oldest first; of one owner, or all."""
        rows = self._rows(
            f"SELECT record FROM batches WHERE status IN ({_OPEN}) "
            "AND (? IS NULL OR owner = ?) ORDER BY seq",
            owner, owner,
        )  # fmt: skip
        return [_batch(row[0]) for row in rows]

    # answers

    def add_answer(self, batch_id: str, line: int, *, ok: bool, answer: bytes) -> None:
        """Keep the answer to a line; one that is there already stays."""
        with self._all_or_nothing() as sql:
            sql.execute(
                "INSERT OR IGNORE INTO answers (batch, line, ok, answer) VALUES (?, ?, ?, ?)",
                (batch_id, line, ok, answer),
            )

    def answered(self, batch_id: str) -> set[int]:
        """Lines that have answers."""
        return {row[0] for row in self._rows("SELECT line FROM answers WHERE batch = ?", batch_id)}

    def answers(self, batch_id: str, *, ok: bool, after: int, limit: int) -> list[Any]:
        """(line, answer) of the next lines behind `after`."""
        return self._rows(
            "SELECT line, answer FROM answers WHERE batch = ? AND ok = ? AND line > ? "
            "ORDER BY line LIMIT ?",
            batch_id, ok, after, limit,
        )  # fmt: skip

    def counts(self, batch_id: str, total: int) -> Counts:
        """How many lines have answers."""
        rows = self._rows("SELECT ok, count(*) FROM answers WHERE batch = ? GROUP BY ok", batch_id)
        counted = dict(rows)
        return Counts(total, counted.get(1, 0), counted.get(0, 0))

    def finish(self, record: BatchRecord, outputs: Sequence[FileRecord]) -> None:
        """The batch has ended: its files are there, its answers are in them."""
        with self._all_or_nothing() as sql:
            for output in outputs:
                _insert_file(sql, output)
            _update_batch(sql, record)
            sql.execute("DELETE FROM answers WHERE batch = ?", (record.batch_id,))
        with _translated():
            self._sql.execute("PRAGMA incremental_vacuum").fetchall()

    def _page(
        self,
        table: str,
        where: str,
        values: tuple[Any, ...],
        after: str,
        limit: int,
        newest_first: bool,
    ) -> list[Any]:
        beyond, order = ("<", "DESC") if newest_first else (">", "ASC")
        start = f"(SELECT seq FROM {table} WHERE id = ?)"
        return self._rows(
            f"SELECT record FROM {table} WHERE {where} AND (? = '' OR seq {beyond} {start}) "
            f"ORDER BY seq {order} LIMIT ?",
            *values, after, after, limit,
        )  # fmt: skip


def _insert_file(sql: sqlite3.Connection, record: FileRecord) -> None:
    sql.execute(
        "INSERT INTO files (id, owner, purpose, size_bytes, record) VALUES (?, ?, ?, ?, ?)",
        (record.file_id, record.owner, record.purpose, record.size_bytes, _encode(record)),
    )


def _update_batch(sql: sqlite3.Connection, record: BatchRecord) -> None:
    sql.execute(
        "UPDATE batches SET status = ?, record = ? WHERE id = ?",
        (record.status.value, _encode(record), record.batch_id),
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"the file store failed: {error}") from error
