"""The served model on disk, so that a restarted router starts where it ended.

    save   temporary file in the same directory, fsync, rename over the old one
    load   the whole file is checked (digest, schema, shapes) before anything is used

Errors   CheckpointError, one line that names the file: no room, no permission,
         truncated, altered, or of another feature schema. A failed save leaves
         the previous checkpoint as it was.

numpy only: the router loads through this module and must not import torch.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from lodestar_router.errors import RouterError
from lodestar_router.features.model_codec import decode_model, encode_model
from lodestar_router.features.serving import ModelFormatError, PublishedModel

FILE_NAME = "model.lodestar"


class CheckpointError(RouterError):
    """A checkpoint that could not be written, or cannot be used."""

    code = "checkpoint_unusable"


def save(model: PublishedModel, state_dir: Path) -> Path:
    """Write the checkpoint; the directory is made if need be."""
    path = state_dir / FILE_NAME
    temporary: str | None = None
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=FILE_NAME, suffix=".tmp", dir=state_dir)
        with os.fdopen(handle, "wb") as file:
            file.write(encode_model(model))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(state_dir)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise CheckpointError(f"cannot save {path}: {error.strerror or error}") from error
    return path


def load(state_dir: Path) -> PublishedModel | None:
    """The model saved there; None if there is none yet."""
    path = state_dir / FILE_NAME
    try:
        return decode_model(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except ModelFormatError as error:
        raise CheckpointError(f"{path} is not usable: {error}") from error


def _sync_directory(directory: Path) -> None:
    """Make the rename itself survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
