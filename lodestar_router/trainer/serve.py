"""The trainer process's loop: rows from one pipe, models to the other.

In       frames on `in_fd`; ends at STOP or end of file, so that no trainer
         outlives its router.
Out      a REPORT frame after every round, a MODEL frame before it if there is a new
         version, which then also is in the state directory.
Errors   what cannot be saved is logged once and does not stop training (keeper.py);
         a broken pipe ends the loop; WireError is raised.

One thread: while a round runs (a second at most) rows wait in the pipe, and behind
it in the router's bounded queue.
"""

import logging
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lodestar_router.features.model_codec import decode_model, encode_model
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.serving import PublishedModel
from lodestar_router.trainer.keeper import Keeper
from lodestar_router.trainer.wire import (
    OLDER_ROWS,
    FrameReader,
    Kind,
    decode_rows,
    encode_report,
    frame,
)

_logger = logging.getLogger(__name__)
_READ_BYTES = 1 << 16


class Learner(Protocol):
    """What the loop needs of learning.trainer.Trainer, without importing torch."""

    @property
    def new_rows(self) -> int: ...

    def add(self, row: TrainingRow) -> None: ...

    def learn_many(self) -> tuple[object, PublishedModel | None]: ...

    def dump(self) -> bytes: ...

    def recall(self, data: bytes, *, older_only: bool) -> int: ...


MakeLearner = Callable[[PublishedModel | None], Learner]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """When to train and where to save."""

    interval_s: float = 3.0  # between the starts of rounds
    min_new_rows: int = 32  # fewer hardly move the fit
    state_dir: Path | None = None  # None: memory only


class TrainerLoop:
    """One router's trainer, from its first frame to its last."""

    def __init__(
        self,
        in_fd: int,
        out_fd: int,
        make_learner: MakeLearner,
        options: ServeOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._in_fd = in_fd
        self._out_fd = out_fd
        self._make_learner = make_learner
        self._learner: Learner | None = None
        self._options = options
        self._clock = clock
        self._keeper = Keeper(options.state_dir, clock)
        self._frames = FrameReader()
        self._next_round_s = clock()

    def run(self) -> None:
        """Serve until STOP, end of file or a broken pipe."""
        try:
            while self._receive(self._patience_s()):
                if self._due():
                    self._round()
        except BrokenPipeError:
            _logger.info("the router is gone")
        if self._learner is not None:
            self._keeper.rows(self._learner.dump, at_once=True)

    def _patience_s(self) -> float | None:
        """How long to wait for rows: until the next round if there is reason for one."""
        if self._learner is None or self._learner.new_rows < self._options.min_new_rows:
            return None
        return max(0.0, self._next_round_s - self._clock())

    def _due(self) -> bool:
        patience_s = self._patience_s()
        return patience_s is not None and patience_s <= 0

    def _receive(self, patience_s: float | None) -> bool:
        """Take in what is there; false when the router is done."""
        if not select.select([self._in_fd], [], [], patience_s)[0]:
            return True
        data = os.read(self._in_fd, _READ_BYTES)
        if not data:
            return False
        for kind, payload in self._frames.feed(data):
            if kind is Kind.STOP:
                return False
            self._take(kind, payload)
        return True

    def _take(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.MODEL:
            self._learner = self._make_learner(decode_model(payload))
        elif kind is Kind.ROUTER:
            self._keeper.router(payload)
        elif kind in (Kind.ROWS, Kind.RECALL):
            learner = self._learner = self._learner or self._make_learner(None)
            if kind is Kind.RECALL:
                older_only = payload == OLDER_ROWS
                self._keeper.recall_rows(lambda data: learner.recall(data, older_only=older_only))
                return
            for row in decode_rows(payload):
                learner.add(row)

    def _round(self) -> None:
        assert self._learner is not None
        self._next_round_s = self._clock() + self._options.interval_s
        report, model = self._learner.learn_many()
        if model is not None:
            self._write(frame(Kind.MODEL, encode_model(model)))
            self._keeper.model(model)
        self._write(frame(Kind.REPORT, encode_report(report)))
        self._keeper.rows(self._learner.dump)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._out_fd, data) :]


def claim_stdout() -> int:
    """Keep stdout for frames: its descriptor, with every other writer sent to stderr."""
    frames_fd = os.dup(1)
    os.dup2(2, 1)
    return frames_fd
