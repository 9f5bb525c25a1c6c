"""The router's end of its trainer process: rows out, models in, restart if it dies.

In       offer(row) from the event loop; never blocks, awaits or raises.
Out      on_model(PublishedModel) on the event loop, once per new version.
Cost     bounded: `capacity` rows, the newest; when the trainer is slow or down
         the oldest unsent row is dropped and counted.
Errors   none reach the caller. A trainer that dies or writes rubbish is logged and
         started again after a backoff, with the last model and the rows remembered,
         so it goes on where the other stopped.

Torch stays in the other process.
"""

import asyncio
import contextlib
import logging
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lodestar_router.features.model_codec import decode_model, encode_model
from lodestar_router.features.row import TrainingRow
from lodestar_router.features.serving import ModelFormatError, PublishedModel
from lodestar_router.tasks import cancel, spawn
from lodestar_router.trainer.wire import (
    OLDER_ROWS,
    FrameReader,
    Kind,
    WireError,
    decode_report,
    encode_rows,
    frame,
)

_logger = logging.getLogger(__name__)
_ROWS_PER_FRAME = 256
_READ_BYTES = 1 << 16
_CAPACITY_ROWS = 4096  # 1 MB; the trainer's window, so a restarted one has it back
MEMORY_INTERVAL_S = 5.0  # fast corrections halve in 45 s
# How long rows wait for others to go with them. A frame takes the trainer out of its sleep,
# which costs more than the rows in it; a round of training comes every few seconds.
_GATHER_S = 0.25
_LIVED_S = 60.0  # a trainer that ran so long did not fail at start: backoff begins anew


@dataclass(slots=True)
class LinkCounters:
    """Totals since the start of the router."""

    rows_offered: int = 0
    rows_sent: int = 0  # rows sent again to a restarted trainer included
    rows_dropped: int = 0
    models_received: int = 0
    starts: int = 0


def trainer_command(state_dir: Path | None = None, seed: int = 0) -> list[str]:
    """How the trainer of this installation is started."""
    command = [sys.executable, "-m", "lodestar_router.trainer", "--seed", str(seed)]
    return command if state_dir is None else [*command, "--state-dir", str(state_dir)]


class TrainerLink:
    """Supervises one trainer process; see the module.

    `start` and `stop` are called once each, on the event loop, as is everything else.
    """

    def __init__(
        self,
        on_model: Callable[[PublishedModel], None],
        *,
        command: Sequence[str],
        model: PublishedModel | None = None,
        memory: Callable[[], bytes] | None = None,
        capacity: int = _CAPACITY_ROWS,
        backoff_s: tuple[float, float] = (0.5, 30.0),  # first, longest
        stop_timeout_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wire it; nothing starts yet.

        Args:
            memory: what the trainer is to keep for the router, every few seconds.
        """
        self._on_model = on_model
        self._memory = memory
        self._memory_due_s = 0.0
        self._command = tuple(command)
        self._model = model
        self._rows: deque[TrainingRow] = deque(maxlen=capacity)
        self._unsent = 0  # how many of the newest rows the trainer has not been sent
        self._something = asyncio.Event()
        self._backoff_s = backoff_s
        self._stop_timeout_s = stop_timeout_s
        self._clock = clock
        self._process: Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.counters = LinkCounters()
        self.last_report: Mapping[str, Any] | None = None  # fields of learning.TrainReport

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self.running and self._process else "down"
        version = None if self._model is None else self._model.version
        return f"<TrainerLink {state}, model {version}, {self._unsent} rows unsent>"

    @property
    def running(self) -> bool:
        """Whether a trainer process is alive now."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """The trainer's process id, if one is alive."""
        return self._process.pid if self._process is not None and self.running else None

    def offer(self, row: TrainingRow) -> None:
        """Queue a row for the trainer; if there is no room, the oldest unsent one goes."""
        self.counters.rows_offered += 1
        if self._unsent == self._rows.maxlen:
            self.counters.rows_dropped += 1
        else:
            self._unsent += 1
        self._rows.append(row)
        self._something.set()

    def start(self) -> None:
        """Begin supervising; the process starts in the background."""
        self._supervisor = spawn(self._supervise(), name="trainer-link")

    async def stop(self) -> None:
        """End the process, asking first; nothing restarts after."""
        if self._process is not None and self._process.stdin is not None and self.running:
            self._remember(self._process.stdin)
        await cancel(self._supervisor)
        self._supervisor = None

    async def _supervise(self) -> None:
        backoff_s, longest_s = self._backoff_s
        wait_s = backoff_s
        while True:
            started_s = self._clock()
            try:
                await self._run_once()
            except (OSError, WireError, ModelFormatError) as error:
                _logger.warning("trainer: %s", error)
            if self._clock() - started_s > _LIVED_S:
                wait_s = backoff_s
            _logger.warning("trainer ended; starting it again in %.1f s", wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, longest_s)

    async def _run_once(self) -> None:
        """One trainer, from its start until it ends or this task is cancelled."""
        process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, stdout=PIPE)
        self._process = process
        self.counters.starts += 1
        assert process.stdin is not None
        assert process.stdout is not None
        writer = spawn(self._write(process.stdin), name="trainer-rows")
        try:
            await self._read(process.stdout)
        finally:
            await cancel(writer)
            await end_process(process, self._stop_timeout_s)

    async def _write(self, pipe: asyncio.StreamWriter) -> None:
        """Send where to start from, then rows, oldest first."""
        try:
            if self._model is not None:
                pipe.write(frame(Kind.MODEL, encode_model(self._model)))
            pipe.write(frame(Kind.RECALL, b"" if self.counters.starts == 1 else OLDER_ROWS))
            self._unsent = len(self._rows)
            while True:
                while self._unsent:
                    self._send_rows(pipe)
                    await pipe.drain()
                if self._clock() >= self._memory_due_s:
                    self._remember(pipe)
                await self._gather(pipe)
        except ConnectionError:
            return  # it died: the reader sees the end of its output

    async def _gather(self, pipe: asyncio.StreamWriter) -> None:
        """Wait for a row, and a while for others; cancelled, send what there is."""
        self._something.clear()
        try:
            await self._something.wait()
            await asyncio.sleep(_GATHER_S)
        except asyncio.CancelledError:
            if not pipe.is_closing():
                self._send_rows(pipe)
            raise

    def _remember(self, pipe: asyncio.StreamWriter) -> None:
        """Give the trainer what it is to keep for the router."""
        self._memory_due_s = self._clock() + MEMORY_INTERVAL_S
        if self._memory is not None and not pipe.is_closing():
            pipe.write(frame(Kind.ROUTER, self._memory()))

    def _send_rows(self, pipe: asyncio.StreamWriter) -> None:
        """One frame of the oldest unsent rows, if there are any."""
        first = len(self._rows) - self._unsent
        batch = list(islice(self._rows, first, first + _ROWS_PER_FRAME))
        if batch:
            self._unsent -= len(batch)
            pipe.write(frame(Kind.ROWS, encode_rows(batch)))
            self.counters.rows_sent += len(batch)

    async def _read(self, pipe: asyncio.StreamReader) -> None:
        """Take models and reports until the trainer closes its end."""
        frames = FrameReader()
        while data := await pipe.read(_READ_BYTES):
            for kind, payload in frames.feed(data):
                if kind is Kind.MODEL:
                    self._model = decode_model(payload)
                    self.counters.models_received += 1
                    self._deliver(self._model)
                elif kind is Kind.REPORT:
                    self.last_report = decode_report(payload)

    def _deliver(self, model: PublishedModel) -> None:
        try:
            self._on_model(model)
        except Exception:  # training goes on, whatever its reader makes of a model
            _logger.exception("model version %d was not taken", model.version)


async def end_process(process: Process, patience_s: float) -> None:
    """Close its input; terminate, then kill, if that is not enough."""
    assert process.stdin is not None
    process.stdin.close()
    for insist in (process.terminate, process.kill):
        try:
            await asyncio.wait_for(asyncio.shield(process.wait()), patience_s)
            return
        except TimeoutError:
            # It may have ended just now. Raised, this would take the place of the
            # cancellation that led here, and another trainer would be started.
            with contextlib.suppress(ProcessLookupError):
                insist()
    await process.wait()
