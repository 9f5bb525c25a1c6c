"""Sends lanes from a thread of its own, so that vLLM never waits for a socket.

In       record(...) from vLLM's event loop: a few microseconds, never a socket.
Out      ZMQ messages (one frame, msgpack) per rank: at most one per `interval_s`
         while it steps, one per `heartbeat_s` while it does not.
Cost     one daemon thread, asleep between messages; memory bounded by HIGH_WATER
         messages per subscriber.
Errors   a port in use is logged once and tried again every BIND_RETRY_S.
Source   ZMQ PUB: a subscriber past its high-water mark loses messages, the
         sender never waits; the loss shows as a gap in `seq` at that subscriber.

The socket is made, used and closed in the thread: ZMQ sockets may not be shared.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import zmq

from lodestar_vllm_stats.lanes import Lane

# Under "vllm." so that vLLM's own log format and level apply.
_logger = logging.getLogger("vllm.lodestar_stats")

HIGH_WATER = 64  # messages per subscriber: under a second at the default interval
BIND_RETRY_S = 5.0


def _wall_clock_s() -> float:
    return time.time_ns() / 1e9


class Publisher:
    """One PUB socket for all data-parallel ranks of one API-server process."""

    def __init__(
        self,
        endpoint: str,
        engine_indexes: Sequence[int],
        *,
        interval_s: float,
        heartbeat_s: float,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = _wall_clock_s,
    ) -> None:
        self.endpoint = endpoint
        self.bound_endpoint: str | None = None  # known once `bound` is set
        self.bound = threading.Event()
        self.sent_total = 0
        self.send_errors_total = 0
        self._interval_s = interval_s
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._name = secrets.token_hex(4)
        self._lanes = {index: self._new_lane(index) for index in engine_indexes}
        self._news = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lodestar-stats", daemon=True)

    def start(self) -> None:
        """Bind and begin to send; returns at once."""
        self._thread.start()

    def close(self, timeout_s: float = 1.0) -> None:
        """Stop sending and release the port; safe to call twice."""
        self._stop.set()
        self._news.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def record(self, scheduler_stats: Any, iteration_stats: Any, engine_index: int) -> None:
        """Add one step of one rank and wake the sender."""
        lane = self._lanes.get(engine_index)
        if lane is None:  # ranks are added while vLLM runs (elastic expert parallelism)
            lane = self._lanes[engine_index] = self._new_lane(engine_index)
        lane.record(scheduler_stats, iteration_stats, self._clock())
        if not self._news.is_set():
            self._news.set()

    def _new_lane(self, engine_index: int) -> Lane:
        return Lane(publisher=self._name, engine_index=engine_index, now_s=self._clock())

    def _run(self) -> None:
        try:
            with zmq.Context() as context, context.socket(zmq.PUB) as socket:
                socket.setsockopt(zmq.LINGER, 0)
                socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
                socket.setsockopt(zmq.SNDTIMEO, 0)
                if self._bind(socket):
                    self._send_until_stopped(socket)
        except Exception:  # edge loop: nothing here may reach the engine
            _logger.exception("scheduler stats stop: the publisher failed")

    def _bind(self, socket: "zmq.Socket[bytes]") -> bool:
        """Bind, however long it takes; False when stopped before it worked."""
        complained = False
        while not self._stop.is_set():
            try:
                socket.bind(self.endpoint)
            except zmq.ZMQError as error:
                if not complained:
                    _logger.warning(
                        "scheduler stats: cannot bind %s (%s), trying again every %g s",
                        self.endpoint, error, BIND_RETRY_S,
                    )  # fmt: skip
                    complained = True
                self._stop.wait(BIND_RETRY_S)
                continue
            self.bound_endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
            self.bound.set()
            _logger.info("scheduler stats are published on %s", self.bound_endpoint)
            return True
        return False

    def _send_until_stopped(self, socket: "zmq.Socket[bytes]") -> None:
        encoder = msgspec.msgpack.Encoder()
        while not self._stop.is_set():
            self._news.clear()
            now_s = self._clock()
            for lane in list(self._lanes.values()):
                if lane.is_due(now_s, self._heartbeat_s):
                    message = lane.take(now_s=now_s, sent_at_s=self._wall_clock())
                    self._send(socket, encoder.encode(message))
            self._stop.wait(self._interval_s)
            self._news.wait(max(0.0, self._heartbeat_s - self._interval_s))

    def _send(self, socket: "zmq.Socket[bytes]", payload: bytes) -> None:
        try:
            socket.send(payload, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            self.send_errors_total += 1
            if self.send_errors_total == 1:
                _logger.warning("scheduler stats: a message was dropped (%s)", error)
        else:
            self.sent_total += 1
