"""What the trainer process keeps in the state directory, and when it writes it.

    model.lodestar     at every publication: what the router starts with
    rows.lodestar      every ROWS_INTERVAL_S, and at the end: what the trainer goes on from
    router.lodestar    when the router sends it: its fast corrections and learned rates

Errors   none reach the caller. A directory that cannot be written to costs one warning,
         whatever is tried later: training goes on in memory. A file that cannot be used
         costs one warning and is set aside as `.bad`.

numpy only; nothing here runs in the router.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from lodestar_router.features.model_codec import encode_model
from lodestar_router.features.serving import PublishedModel
from lodestar_router.learning.checkpoint import (
    FILE_NAME,
    CheckpointError,
    read,
    set_aside,
    write_atomically,
)

_logger = logging.getLogger(__name__)

ROWS_FILE = "rows.lodestar"
ROUTER_FILE = "router.lodestar"
ROWS_INTERVAL_S = 30.0  # what a crash loses of them; a megabyte each time


class Keeper:
    """One state directory; without any, nothing is kept."""

    def __init__(self, directory: Path | None, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._clock = clock
        self._rows_due_s = clock() + ROWS_INTERVAL_S
        self._failing = False

    def model(self, model: PublishedModel) -> None:
        """A version was published."""
        self._save(FILE_NAME, lambda: encode_model(model))

    def router(self, data: bytes) -> None:
        """The router wants this kept."""
        self._save(ROUTER_FILE, lambda: data)

    def rows(self, dump: Callable[[], bytes], *, at_once: bool = False) -> None:
        """Rows have come; they are dumped when it is time."""
        if at_once or self._clock() >= self._rows_due_s:
            self._rows_due_s = self._clock() + ROWS_INTERVAL_S
            self._save(ROWS_FILE, dump)

    def recall_rows(self, recall: Callable[[bytes], int]) -> None:
        """Hand over the rows that were kept, if there are any."""
        if self._directory is None:
            return
        path = self._directory / ROWS_FILE
        try:
            data = read(path)
            if data is not None:
                _logger.info("%d training rows recalled", recall(data))
        except CheckpointError as error:
            set_aside(path)
            _logger.warning("starting without the saved rows: %s: %s", path, error)

    def _save(self, name: str, data: Callable[[], bytes]) -> None:
        if self._directory is None:
            return
        try:
            write_atomically(self._directory / name, data())
        except CheckpointError as error:
            if not self._failing:
                _logger.warning("%s; what is learned stays in memory", error)
            self._failing = True
            return
        if self._failing:
            _logger.info("%s can be written to again", self._directory)
        self._failing = False
