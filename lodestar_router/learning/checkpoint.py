"""What is learned on disk, so that a restarted router starts where it ended.

    save   temporary file in the same directory, fsync, rename over the old one
    load   the whole file is checked (digest, schema, shapes) before anything is used

Errors   CheckpointError, one line that names the file: no room, no permission,
         truncated, altered, or of another feature schema. A failed save leaves
         the previous checkpoint as it was.

numpy only: the router loads through this module and must not import torch.
"""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from lodestar_router.errors import RouterError
from lodestar_router.features.model_codec import decode_model, encode_model
from lodestar_router.features.serving import ModelFormatError, PublishedModel

FILE_NAME = "model.lodestar"
_DIGEST_BYTES = 32


class CheckpointError(RouterError):
    """A checkpoint that could not be written, or cannot be used."""

    code = "checkpoint_unusable"


def save(model: PublishedModel, state_dir: Path) -> Path:
    """Write the checkpoint; the directory is made if need be."""
    return write_atomically(state_dir / FILE_NAME, encode_model(model))


def write_atomically(path: Path, data: bytes) -> Path:
    """All of it or none; the directory is made if need be."""
    directory, temporary = path.parent, None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=directory)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(directory)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise CheckpointError(f"cannot save {path}: {error.strerror or error}") from error
    return path


def load(state_dir: Path) -> PublishedModel | None:
    """The model saved there; None if there is none yet."""
    path = state_dir / FILE_NAME
    data = read(path)
    if data is None:
        return None
    try:
        return decode_model(data)
    except ModelFormatError as error:
        raise CheckpointError(f"{path} is not usable: {error}") from error


def read(path: Path) -> bytes | None:
    """A whole file; None if there is none yet."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def set_aside(path: Path) -> None:
    """Rename a file that cannot be used to `.bad`, for whoever wants to know why."""
    with contextlib.suppress(OSError):
        path.replace(path.with_name(path.name + ".bad"))


def seal(kind: str, body: bytes) -> bytes:
    """A file of any other kind: what it is, its content, a digest of both."""
    data = _magic(kind) + body
    return data + hashlib.sha256(data).digest()


def unseal(kind: str, data: bytes) -> bytes:
    """The inverse of seal; CheckpointError for anything else."""
    content, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if not content.startswith(_magic(kind)):
        raise CheckpointError(f"not a file of {kind}")
    if hashlib.sha256(content).digest() != digest:
        raise CheckpointError("truncated or altered: the digest does not match")
    return content[len(_magic(kind)) :]


def _magic(kind: str) -> bytes:
    return f"lodestar-{kind}\n".encode()


def _sync_directory(directory: Path) -> None:
    """Make the rename itself survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
