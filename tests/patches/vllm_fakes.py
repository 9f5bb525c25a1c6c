"""The parts of vLLM's stats objects (v0.32.0) that the plugin reads."""

from dataclasses import dataclass, field


@dataclass
class FakePrefixCacheStats:
    queries: int = 0
    hits: int = 0


@dataclass
class FakeIterationDetails:
    num_ctx_tokens: int = 0
    num_generation_tokens: int = 0


@dataclass
class FakeSchedulerStats:
    num_running_reqs: int = 0
    num_waiting_reqs: int = 0
    num_skipped_waiting_reqs: int = 0
    kv_cache_usage: float = 0.0
    prefix_cache_stats: FakePrefixCacheStats = field(default_factory=FakePrefixCacheStats)
    iteration_details: FakeIterationDetails | None = None


@dataclass
class FakePromptTokenStats:
    computed: int = 0
    cached_tokens: int = 0
    total: int = 0


@dataclass
class FakeFinishedRequest:
    e2e_latency: float = 0.5
    queued_time: float = 0.1
    prefill_time: float = 0.2
    decode_time: float = 0.15
    num_prompt_tokens: int = 100
    num_generation_tokens: int = 16
    num_cached_tokens: int = 64


@dataclass
class FakeIterationStats:
    prompt_token_stats: FakePromptTokenStats = field(default_factory=FakePromptTokenStats)
    num_generation_tokens: int = 0
    num_preempted_reqs: int = 0
    finished_requests: list[FakeFinishedRequest] = field(default_factory=list)


@dataclass
class FakeParallelConfig:
    _api_process_rank: int = 0


@dataclass
class FakeVllmConfig:
    parallel_config: FakeParallelConfig = field(default_factory=FakeParallelConfig)
