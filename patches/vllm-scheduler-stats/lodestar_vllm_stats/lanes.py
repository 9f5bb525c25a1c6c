"""Adds up the stats of engine steps until the next message is due.

In       record(scheduler_stats, iteration_stats, now_s): vLLM's own objects, any
         of them None. Called once per step, from vLLM's event loop.
Out      take(...): one message as a mapping, ready for msgpack (wire version 1).
Cost     record O(finished requests), a few microseconds; memory at most
         MAX_FINISHED requests per lane, the oldest dropped and counted.
Errors   whatever a foreign object without the expected fields raises; the
         caller swallows it. Its step is left out and the lane falls silent.
Source   vllm/v1/metrics/stats.py and loggers.py at v0.32.0.

No I/O, clock or vLLM import. A lock guards the lane, held for copies only:
one thread records, another takes.
"""

from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import Any

WIRE_VERSION = 1
MAX_FINISHED = 512  # several seconds of short answers at the default interval

Finished = tuple[float, float, float, float, int, int, int]


@dataclass
class _State:
    """The latest step, and totals since this process started."""

    num_running_reqs: int = 0
    num_waiting_reqs: int = 0  # deferred ones included, as in vllm:num_requests_waiting
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


class Lane:
    """The stats of one data-parallel rank as one API-server process sees them.

    A rank that has not stepped yet is idle, so a new lane says zero requests,
    observed at its start.
    """

    def __init__(self, *, publisher: str, engine_index: int, now_s: float) -> None:
        self._publisher = publisher
        self._engine_index = engine_index
        self._seq = 0
        self._stepped_at_s = now_s
        self._taken_at_s = float("-inf")
        self._has_news = False
        self._silent = False
        self._state = _State()
        self._finished: deque[Finished] = deque()
        self._lock = Lock()

    def record(self, scheduler_stats: Any, iteration_stats: Any, now_s: float) -> None:
        """Add one step; reads everything it needs before it changes anything.

        A step that could not be read leaves the lane silent until one can: a
        heartbeat would make an outdated load look alive.
        """
        self._silent = True
        load = None if scheduler_stats is None else _load_of(scheduler_stats)
        tokens = None if iteration_stats is None else _tokens_of(iteration_stats)
        details = getattr(scheduler_stats, "iteration_details", None)
        with self._lock:
            self._has_news = True
            self._silent = False
            if load is not None:
                self._add_load(load)
                self._stepped_at_s = now_s
            if tokens is not None:
                self._add_tokens(tokens)
            if details is not None:  # exact per step; without, a prompt counts at its first token
                self._state.step_prefill_tokens = int(details.num_ctx_tokens)
                self._state.step_generation_tokens = int(details.num_generation_tokens)

    def is_due(self, now_s: float, heartbeat_s: float) -> bool:
        """Whether there is something new to say, or nothing was said for a heartbeat."""
        if self._silent:
            return False
        return self._has_news or now_s - self._taken_at_s >= heartbeat_s

    def take(self, *, now_s: float, sent_at_s: float) -> dict[str, Any]:
        """The next message; finished requests are handed over, not copied again."""
        with self._lock:
            self._seq += 1
            self._taken_at_s = now_s
            self._has_news = False
            message = {
                "v": WIRE_VERSION,
                "publisher": self._publisher,
                "engine_index": self._engine_index,
                "seq": self._seq,
                "sent_at_s": sent_at_s,
                "state_age_s": max(0.0, now_s - self._stepped_at_s),
                **vars(self._state),
            }
            finished, self._finished = self._finished, deque()
        message["finished"] = list(finished)
        return message

    def _add_load(self, load: tuple[int, int, float, int, int]) -> None:
        state = self._state
        state.num_running_reqs, state.num_waiting_reqs, state.kv_cache_usage_ratio = load[:3]
        state.prefix_cache_queries_tokens_total += load[3]
        state.prefix_cache_hits_tokens_total += load[4]
        state.steps_total += 1
        state.step_prefill_tokens = state.step_generation_tokens = 0

    def _add_tokens(self, tokens: tuple[int, int, int, int, int, list[Finished]]) -> None:
        computed, prompt, cached, generated, preempted, finished = tokens
        state = self._state
        state.step_prefill_tokens = computed
        state.step_generation_tokens = generated
        state.prompt_tokens_total += prompt
        state.cached_prompt_tokens_total += cached
        state.generation_tokens_total += generated
        state.preemptions_total += preempted
        self._finished.extend(finished)
        while len(self._finished) > MAX_FINISHED:
            self._finished.popleft()
            state.finished_dropped_total += 1


def _load_of(stats: Any) -> tuple[int, int, float, int, int]:
    """(running, waiting, KV usage 0..1, prefix cache tokens asked for, found)."""
    cache = stats.prefix_cache_stats
    return (
        int(stats.num_running_reqs),
        int(stats.num_waiting_reqs) + int(getattr(stats, "num_skipped_waiting_reqs", 0)),
        float(stats.kv_cache_usage),
        0 if cache is None else int(cache.queries),
        0 if cache is None else int(cache.hits),
    )


def _tokens_of(stats: Any) -> tuple[int, int, int, int, int, list[Finished]]:
    """(prompt computed, prompt, prompt cached, generated, preempted, finished requests)."""
    prompt = stats.prompt_token_stats
    return (
        int(prompt.computed),
        int(prompt.total),
        int(prompt.cached_tokens),
        int(stats.num_generation_tokens),
        int(stats.num_preempted_reqs),
        [_finished_of(request) for request in stats.finished_requests],
    )


def _finished_of(request: Any) -> Finished:
    """(queue_s, prefill_s, decode_s, e2e_s, prompt, generated, cached tokens).

    A request that ended before a phase began has a timestamp of zero there, so
    vLLM's difference is negative; it is sent as 0.
    """
    return (
        max(0.0, float(request.queued_time)),
        max(0.0, float(request.prefill_time)),
        max(0.0, float(request.decode_time)),
        max(0.0, float(request.e2e_latency)),
        int(request.num_prompt_tokens),
        int(request.num_generation_tokens),
        int(request.num_cached_tokens),
    )
