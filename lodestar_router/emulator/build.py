"""An emulated engine from the few things an operator says of it.

In       EngineSettings: a GPU kind and a model, and what differs from the defaults
         that vLLM would choose there.
Out      EngineModel.
Errors   ConfigError for unknown names and impossible combinations.
Source   vllm/engine/arg_utils.py at v0.32.0 for batch defaults; the V100's are those
         of vLLM 0.8.5, whose V0 engine was the last to run there.
"""

from dataclasses import dataclass

from lodestar_router.emulator.config import EngineModelConfig, SchedulerKind
from lodestar_router.emulator.engine_model import EngineModel
from lodestar_router.emulator.profiles import EngineProfile, load_profile

DEFAULT_MODEL = "llama-3-8b"
_MAX_MODEL_LEN = 30_000  # tokens; what the Lodestar paper's engines were started with
_CHUNKED_BUDGET_TOKENS = 2048  # vLLM's default below 70 GiB of memory


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """None stands for the default of the GPU kind, the model or vLLM."""

    gpu: str
    model: str = DEFAULT_MODEL
    scheduler: SchedulerKind | None = None
    prefix_caching: bool | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    max_model_len: int | None = None  # None: 30,000, or what the KV pool holds
    kv_blocks: int | None = None  # KV pool, the null block included
    long_prefill_token_threshold: int = 0
    reserve_full_sequence: bool = True
    eager: bool = False  # without CUDA graphs: more host time per step
    async_scheduling: bool | None = None
    slowdown: float = 1.0
    kv_events: bool = True
    kv_event_tokens: bool = True
    vocab_size: int | None = None  # generated tokens are below it


def build_engine(settings: EngineSettings) -> EngineModel:
    """The engine that `settings` describes, empty."""
    profile = load_profile(
        settings.gpu,
        settings.model,
        eager=settings.eager,
        async_scheduling=settings.async_scheduling,
    )
    return EngineModel(_config(settings, profile), profile.step_time)


def _config(settings: EngineSettings, profile: EngineProfile) -> EngineModelConfig:
    own_kind = SchedulerKind.PREFILL_FIRST if profile.prefill_first else SchedulerKind.CHUNKED
    kind = settings.scheduler or own_kind
    num_blocks = settings.kv_blocks or profile.kv_blocks
    caching = settings.prefix_caching
    # One block is the null block, and a watermark of 1 % may be kept free.
    held_tokens = max(1, num_blocks - 1 - num_blocks // 100) * profile.block_size_tokens
    max_model_len = settings.max_model_len or min(_MAX_MODEL_LEN, held_tokens)
    budget = settings.max_num_batched_tokens or _budget(profile, kind, max_model_len)
    return EngineModelConfig(
        num_blocks=num_blocks,
        block_size_tokens=profile.block_size_tokens,
        max_num_batched_tokens=budget,
        max_num_seqs=settings.max_num_seqs or min(profile.max_num_seqs, budget),
        max_model_len=max_model_len,
        scheduler=kind,
        prefix_caching=not profile.prefill_first if caching is None else caching,
        reserve_full_sequence=settings.reserve_full_sequence,
        long_prefill_token_threshold=settings.long_prefill_token_threshold,
        kv_events=settings.kv_events,
        kv_event_tokens=settings.kv_event_tokens,
        vocab_size=settings.vocab_size or profile.vocab_size,
        slowdown=settings.slowdown,
    )


def _budget(profile: EngineProfile, kind: SchedulerKind, max_model_len: int) -> int:
    """A whole prompt must fit one step where prompts are not cut."""
    if kind is SchedulerKind.PREFILL_FIRST:
        return max(profile.max_num_batched_tokens, max_model_len)
    return _CHUNKED_BUDGET_TOKENS if profile.prefill_first else profile.max_num_batched_tokens
