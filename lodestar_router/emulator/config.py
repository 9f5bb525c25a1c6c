"""What an operator can set of an emulated engine, in vLLM's terms.

In       numbers and flags; names follow vLLM's options.
Out      EngineModelConfig, checked.
Errors   ConfigError for a combination that vLLM refuses or could never run.
Source   vllm/config/scheduler.py and cache.py at v0.32.0.
"""

from dataclasses import dataclass
from enum import StrEnum

from lodestar_router.errors import ConfigError


class SchedulerKind(StrEnum):
    """Which requests share a step."""

    CHUNKED = "chunked"  # vLLM V1: running ones first, prompts in chunks beside decodes
    PREFILL_FIRST = "prefill_first"  # vLLM V0 unchunked: whole prompts, or else decodes


# V0's block manager leaves this share of the pool free when it admits a prompt.
_PREFILL_FIRST_WATERMARK_RATIO = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineModelConfig:
    """Limits and variants of one engine; defaults are vLLM 0.32's on a small GPU."""

    num_blocks: int  # KV pool, the null block included
    block_size_tokens: int = 16
    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    max_model_len: int = 8192  # tokens of prompt and answer
    scheduler: SchedulerKind = SchedulerKind.CHUNKED
    prefix_caching: bool = True
    chunked_prefill: bool = True  # false: a prompt waits until it fits the step's budget
    reserve_full_sequence: bool = (
        True  # admit only what fits whole; vLLM's scheduler_reserve_full_isl
    )
    long_prefill_token_threshold: int = 0  # longest chunk while others are there; 0: no limit
    kv_events: bool = True
    kv_event_tokens: bool = True  # false: events name blocks by our keys, and nobody reads tokens
    vocab_size: int = 32_000  # generated tokens are below it
    slowdown: float = 1.0  # every step takes this many times as long

    def __post_init__(self) -> None:
        if self.num_blocks < 2:
            raise ConfigError(f"a KV pool of {self.num_blocks} blocks holds nothing: 2 at least")
        if self.block_size_tokens < 2:
            raise ConfigError("block_size_tokens must be 2 at least")
        if not 1 <= self.max_num_seqs <= self.max_num_batched_tokens:
            raise ConfigError("max_num_seqs must be 1 to max_num_batched_tokens")
        if not self.cuts_prompts and self.max_num_batched_tokens < self.max_model_len:
            raise ConfigError(
                f"without chunked prefill, max_num_batched_tokens ({self.max_num_batched_tokens}) "
                f"must be max_model_len ({self.max_model_len}) at least"
            )
        if self.long_prefill_token_threshold and self.scheduler is SchedulerKind.PREFILL_FIRST:
            raise ConfigError("long_prefill_token_threshold needs the chunked scheduler")
        if self.slowdown <= 0.0:
            raise ConfigError("slowdown must be above 0")

    @property
    def cuts_prompts(self) -> bool:
        """Whether a prompt may be computed in several steps."""
        return self.chunked_prefill and self.scheduler is SchedulerKind.CHUNKED

    @property
    def watermark_blocks(self) -> int:
        """Blocks that admission leaves free."""
        if self.scheduler is SchedulerKind.PREFILL_FIRST:
            return int(_PREFILL_FIRST_WATERMARK_RATIO * self.num_blocks)
        return 0
