"""Scheduler stats as the vLLM plugin sends them: msgpack to values and back.

In       one ZMQ frame: a msgpack map with "v": 1, sent by patches/vllm-scheduler-stats.
Out      SchedulerStats, one data-parallel rank as one API-server process sees it.
Cost     decode about 1 us (two finished requests, Python 3.11).
Errors   UnknownStatsVersionError for another "v"; MalformedStatsError for anything
         that is not this map. Unknown keys are ignored, so keys may be added
         without a new version; a changed meaning needs one.
Source   patches/vllm-scheduler-stats/lodestar_vllm_stats/lanes.py.

No I/O or clock.
"""

from typing import Annotated

import msgspec

from lodestar_router.core.types import EngineLoad
from lodestar_router.errors import EngineError

WIRE_VERSION = 1
LOAD_SOURCE = "scheduler_stats"

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0.0)]
# A hair over 1 is rounding, more is another unit.
Ratio = Annotated[float, msgspec.Meta(ge=0.0, le=1.000001)]


class UnknownStatsVersionError(EngineError):
    """The plugin speaks a version this router does not know."""


class MalformedStatsError(EngineError):
    """The frame is not a scheduler stats message."""


class FinishedRequest(msgspec.Struct, frozen=True, array_like=True):
    """One request that ended since the message before, as vLLM timed it.

    A phase that was never reached (aborted while waiting) counts 0 s.
    """

    queue_s: Seconds  # from queued to first scheduled
    prefill_s: Seconds  # from first scheduled to first token
    decode_s: Seconds  # from first token to last
    e2e_s: Seconds  # from its arrival at the API server
    prompt_tokens: Count
    generation_tokens: Count
    cached_tokens: Count  # of the prompt, found in the prefix cache


class SchedulerStats(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's latest step, and totals since its API-server process started.

    Totals rather than differences: a lost message then loses no tokens. They
    belong to `publisher`; a new publisher starts again from 0.
    """

    version: Annotated[int, msgspec.Meta(ge=WIRE_VERSION, le=WIRE_VERSION)] = msgspec.field(
        name="v", default=WIRE_VERSION
    )
    publisher: str  # one run of one API-server process
    engine_index: Count  # data-parallel rank
    seq: Count  # per publisher and rank, without holes
    sent_at_s: float  # the engine host's wall clock, since the epoch
    state_age_s: Seconds  # from the latest step this process heard of to sending
    num_running_reqs: Count
    num_waiting_reqs: Count
    kv_cache_usage_ratio: Ratio
    step_prefill_tokens: Count  # of the latest step: prompt tokens computed
    step_generation_tokens: Count
    steps_total: Count
    prompt_tokens_total: Count  # cached ones included
    cached_prompt_tokens_total: Count
    generation_tokens_total: Count
    preemptions_total: Count
    prefix_cache_queries_tokens_total: Count
    prefix_cache_hits_tokens_total: Count
    finished_dropped_total: Count = 0  # finished requests the plugin had no room for
    finished: tuple[FinishedRequest, ...] = ()

    @property
    def step_scheduled_tokens(self) -> int:
        """Tokens the latest step worked on."""
        return self.step_prefill_tokens + self.step_generation_tokens


class _Header(msgspec.Struct):
    version: int = msgspec.field(name="v")


_decoder = msgspec.msgpack.Decoder(SchedulerStats)
_header_decoder = msgspec.msgpack.Decoder(_Header)
_encoder = msgspec.msgpack.Encoder()


def decode(payload: bytes) -> SchedulerStats:
    """One message."""
    try:
        return _decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise _reason(payload, error) from error


def encode(stats: SchedulerStats) -> bytes:
    """The frame that decodes to `stats`."""
    return _encoder.encode(stats)


def to_load(stats: SchedulerStats, observed_at_s: float) -> EngineLoad:
    """The load of an engine with a single rank; StatsLoadView covers several."""
    return EngineLoad(
        observed_at_s=observed_at_s,
        source=LOAD_SOURCE,
        num_running_reqs=stats.num_running_reqs,
        num_waiting_reqs=stats.num_waiting_reqs,
        kv_cache_usage_ratio=min(1.0, stats.kv_cache_usage_ratio),
    )


def _reason(payload: bytes, error: msgspec.MsgspecError) -> EngineError:
    try:
        version = _header_decoder.decode(payload).version
    except msgspec.MsgspecError:
        return MalformedStatsError(f"not a scheduler stats message: {error}")
    if version != WIRE_VERSION:
        return UnknownStatsVersionError(f"scheduler stats version {version}, known: {WIRE_VERSION}")
    return MalformedStatsError(f"not a scheduler stats message: {error}")
