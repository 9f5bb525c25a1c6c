"""The contents of files, each a file of its own in one directory.

    files/file-<24 hex>        whole, as it was given
    files/file-<24 hex>.part   being written; removed at the next start

No name that a client gives is ever part of a path: ids are made here and looked up in the
database before they come here.

Errors   StorageError: no room, or the disk fails. Then nothing of the file is left.
"""

import errno
import os
import re
import secrets
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lodestar_router.batches.records import NotFoundError
from lodestar_router.errors import StorageError

_ID = re.compile(r"file-[0-9a-f]{24}")
_PART = ".part"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Bytes = bytes | memoryview


def new_file_id() -> str:
    """One that nobody guesses."""
    return f"file-{secrets.token_hex(12)}"


class LocalFiles:
    """The directory. Calls wait for the disk: keep them off the event loop."""

    def __init__(self, directory: Path) -> None:
        """Open or make the directory.

        Raises:
            StorageError: it can be neither read nor made.
        """
        self._directory = directory / "files"
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _translated(error) from error

    def save(self, file_id: str, pieces: Iterable[Bytes]) -> int:
        """Write a file, whole or not at all; its size in bytes."""
        path = self._path(file_id)
        part = path.with_name(path.name + _PART)
        try:
            with part.open("xb") as file:
                size_bytes = sum(file.write(piece) for piece in pieces)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
            self._sync()
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise _translated(error) from error
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
        return size_bytes

    def open(self, file_id: str) -> BinaryIO:
        """The content, to be read and closed.

        Raises:
            NotFoundError: somebody has taken it away.
        """
        try:
            return self._path(file_id).open("rb")
        except FileNotFoundError as error:
            raise NotFoundError("the content of the file is gone") from error
        except OSError as error:
            raise _translated(error) from error

    def remove(self, file_id: str) -> None:
        """Delete the content; nothing happens if it is gone already."""
        try:
            self._path(file_id).unlink(missing_ok=True)
        except OSError as error:
            raise _translated(error) from error

    def keep_only(self, known: Collection[str]) -> None:
        """Remove what a process that died in between has left."""
        try:
            for path in self._directory.iterdir():
                ours = _ID.fullmatch(path.name.removesuffix(_PART))
                if ours and path.name not in known:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise _translated(error) from error

    def _path(self, file_id: str) -> Path:
        if not _ID.fullmatch(file_id):
            raise ValueError("an id that was not made here")
        return self._directory / file_id

    def _sync(self) -> None:
        """A new name is on the disk only when its directory is."""
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _translated(error: OSError) -> StorageError:
    if error.errno in _FULL:
        return StorageError("the file store is full")
    return StorageError(f"the file store failed: {error.strerror or error}")
