"""Publishes an emulated engine's scheduler stats as the vLLM plugin does.

    at most one message per INTERVAL_S while it steps, one per HEARTBEAT_S while not

In       the steps of an engine.
Out      stats_wire messages on a PUB socket, one rank.
Cost     about 20 us per message, at most 100 messages/s.
Errors   ConfigError when the port cannot be bound.
Source   patches/vllm-scheduler-stats/lodestar_vllm_stats: lanes.py, publisher.py.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from lodestar_router.emulator.server_engine import Progress, Step
from lodestar_router.emulator.server_kv import bind, zmq_host
from lodestar_router.engines.stats_wire import FinishedRequest, SchedulerStats, encode

INTERVAL_S = 0.010
HEARTBEAT_S = 0.250
_HIGH_WATER = 64  # messages held per subscriber
_MOST_FINISHED = 512


@dataclass(slots=True)
class _State:
    """The latest step, and totals since this engine started."""

    num_running_reqs: int = 0
    num_waiting_reqs: int = 0
    kv_cache_usage_ratio: float = 0.0
    step_prefill_tokens: int = 0
    step_generation_tokens: int = 0
    steps_total: int = 0
    prompt_tokens_total: int = 0
    cached_prompt_tokens_total: int = 0
    generation_tokens_total: int = 0
    preemptions_total: int = 0
    prefix_cache_queries_tokens_total: int = 0
    prefix_cache_hits_tokens_total: int = 0
    finished_dropped_total: int = 0


class StatsPublisher:
    """One PUB socket; `run` sends until cancelled."""

    def __init__(
        self,
        context: "zmq.Context[Any]",
        *,
        host: str,
        port: int,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._host = host
        self._state = _State()
        self._finished: deque[FinishedRequest] = deque()
        self._publisher = secrets.token_hex(4)
        self._seq = 0
        self._stepped_at_s = clock()
        self._news = asyncio.Event()
        self._socket: zmq.Socket[bytes] = context.socket(zmq.PUB, socket_class=zmq.Socket)
        self._socket.linger = 0
        self._socket.set_hwm(_HIGH_WATER)
        try:
            self.port = bind(self._socket, host, port)
        except BaseException:
            self.close()
            raise

    @property
    def endpoint(self) -> str:
        """Where to subscribe."""
        return f"tcp://{zmq_host(self._host)}:{self.port}"

    def stepped(self, step: Step) -> None:
        """Add one step."""
        result, state = step.result, self._state
        state.num_running_reqs = result.num_running_reqs
        state.num_waiting_reqs = result.num_waiting_reqs
        state.kv_cache_usage_ratio = result.kv_cache_usage_ratio
        state.step_prefill_tokens = result.prefill_tokens
        state.step_generation_tokens = result.decodes
        state.steps_total += result.duration_s > 0.0
        state.generation_tokens_total += len(result.emitted)
        state.preemptions_total += len(result.preempted)
        state.prefix_cache_queries_tokens_total += result.prefix_queries_tokens
        state.prefix_cache_hits_tokens_total += result.prefix_hits_tokens
        for one in step.first:
            state.prompt_tokens_total += one.sequence.prompt_tokens
            state.cached_prompt_tokens_total += one.sequence.cached_tokens
        for one in step.finished:
            self._add_finished(one, one.made + 1)
        self._stepped_at_s = self._clock()
        self._news.set()

    def aborted(self, progress: Progress) -> None:
        """Add a request that its client ended."""
        self._add_finished(progress, progress.made)

    def _add_finished(self, progress: Progress, made: int) -> None:
        sequence = progress.sequence
        end_s = sequence.finished_at_s or self._clock()
        admitted_s, first_s = sequence.admitted_at_s, sequence.first_token_at_s
        self._finished.append(
            FinishedRequest(
                queue_s=_span(sequence.arrived_at_s, admitted_s),
                prefill_s=_span(admitted_s, first_s),
                decode_s=_span(first_s, end_s),
                e2e_s=_span(sequence.arrived_at_s, end_s),
                prompt_tokens=sequence.prompt_tokens,
                generation_tokens=made,
                cached_tokens=sequence.cached_tokens,
            )
        )
        if len(self._finished) > _MOST_FINISHED:
            self._finished.popleft()
            self._state.finished_dropped_total += 1

    async def run(self) -> None:
        """Send when there is news, but not too often, and a heartbeat when there is none."""
        while True:
            self._news.clear()
            self._send()
            await asyncio.sleep(INTERVAL_S)
            try:
                async with asyncio.timeout(HEARTBEAT_S - INTERVAL_S):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _send(self) -> None:
        self._seq += 1
        state = self._state
        message = SchedulerStats(
            publisher=self._publisher,
            engine_index=0,
            seq=self._seq,
            sent_at_s=time.time_ns() / 1e9,
            state_age_s=max(0.0, self._clock() - self._stepped_at_s),
            finished=tuple(self._finished),
            **{name: getattr(state, name) for name in _State.__slots__},
        )
        self._finished.clear()
        self._socket.send(encode(message), zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _span(start_s: float | None, end_s: float | None) -> float:
    """Seconds between two instants; 0 for a phase that was not reached.

    A step may begin a moment before a request that joins it arrived.
    """
    return 0.0 if start_s is None or end_s is None else max(0.0, end_s - start_s)
