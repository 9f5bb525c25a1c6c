"""A vLLM engine whose steps cost computed time instead of spent time.

    model.add(request); result = model.step(now_s); the result holds at
    now_s + result.duration_s, and then is the time of the next step

Requests added meanwhile take part in the next step, as in vLLM. An abort between
two steps frees at once.

In       requests, aborts, the time at which a step starts.
Out      StepResult: tokens, first and last ones, KV events, scheduler stats.
Cost     about 10 us per step of decodes, whatever their number.
Errors   RequestError for a request that could never run; KeyError for an id in use.
Source   vllm/v1/engine/core.py at v0.32.0 for the order of a step; the golden
         traces in tests/data hold it to the real scheduler.

Pure: no clock, randomness or I/O. Not covered: speculative decoding, LoRA,
multimodal input, priorities, hybrid models. Asynchronous scheduling is a matter
of step time only.
"""

from collections.abc import Sequence as SequenceOf

from msgspec import Struct

from lodestar_router.core.kv_events import KvEvent
from lodestar_router.emulator.batch import Batch, Chunk
from lodestar_router.emulator.block_pool import BlockPool
from lodestar_router.emulator.config import EngineModelConfig, SchedulerKind
from lodestar_router.emulator.prefill_first import PrefillFirstScheduler
from lodestar_router.emulator.scheduler import Scheduler
from lodestar_router.emulator.sequence import EmulatedRequest, Sequence
from lodestar_router.emulator.step_time import StepTime
from lodestar_router.errors import RequestError


class StepResult(Struct, frozen=True, eq=False):
    """One step.

    Sequences in it are live: read their progress before the next step.
    """

    started_at_s: float
    duration_s: float
    emitted: SequenceOf[Sequence]  # each made one token: its `output_tokens - 1`th
    first: SequenceOf[Sequence]  # of those, who made their first
    finished: SequenceOf[Sequence]  # of those, who made their last
    decodes: int  # sequences that computed one token of their answer
    chunks: SequenceOf[Chunk]  # prefills
    preempted: SequenceOf[Sequence]
    events: list[KvEvent]  # to be published at the end of the step
    num_running_reqs: int  # this and the next two: after the step
    num_waiting_reqs: int
    kv_cache_usage_ratio: float
    prefix_queries_tokens: int  # looked up at first admission, in this step
    prefix_hits_tokens: int

    @property
    def ended_at_s(self) -> float:
        """When its tokens, events and stats are out."""
        return self.started_at_s + self.duration_s

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens computed."""
        return sum(chunk.new_tokens for chunk in self.chunks)


class EngineModel:
    """One emulated engine; `pool` is for looking at only."""

    def __init__(self, config: EngineModelConfig, step_time: StepTime) -> None:
        self.config = config
        self.slowdown = config.slowdown  # may be changed between steps
        self.step_time = step_time
        events = config.kv_events and config.prefix_caching
        self.pool = BlockPool(
            config.num_blocks,
            config.block_size_tokens,
            events=events,
            tokens=config.kv_event_tokens,
        )
        prefill_first = config.scheduler is SchedulerKind.PREFILL_FIRST
        self._scheduler = (PrefillFirstScheduler if prefill_first else Scheduler)(config, self.pool)
        self._sequences: dict[str, Sequence] = {}
        self._added = 0

    @property
    def num_running_reqs(self) -> int:
        """Requests that hold blocks."""
        return len(self._scheduler.running)

    @property
    def num_waiting_reqs(self) -> int:
        """Requests in the queue, preempted ones included."""
        return len(self._scheduler.waiting)

    @property
    def kv_cache_usage_ratio(self) -> float:
        """0..1: blocks held by running requests."""
        return self.pool.usage_ratio

    @property
    def free_blocks(self) -> int:
        """Blocks no request holds, with or without reusable content."""
        return self.pool.free_count

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._sequences)

    def running(self) -> list[Sequence]:
        """Requests that hold blocks, in the order of admission."""
        return list(self._scheduler.running)

    def waiting(self) -> list[Sequence]:
        """Requests in the queue, next first."""
        return list(self._scheduler.waiting)

    def add(self, request: EmulatedRequest) -> Sequence:
        """Queue a request; the returned sequence shows its progress."""
        if request.request_id in self._sequences:
            raise KeyError(f"request id '{request.request_id}' is in use")
        self._check(request)
        config = self.config
        self._added += 1
        sequence = Sequence(
            request,
            order=self._added,
            block_size_tokens=config.block_size_tokens,
            max_model_len=config.max_model_len,
            vocab_size=config.vocab_size,
            hashed=config.prefix_caching,
        )
        self._sequences[request.request_id] = sequence
        self._scheduler.waiting.append(sequence)
        return sequence

    def abort(self, request_id: str, now_s: float) -> bool:
        """End a request early; false if it is not here (any more)."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is None:
            return False
        self._scheduler.drop(sequence)
        sequence.aborted = True
        sequence.finished_at_s = now_s
        return True

    def clear_prefix_cache(self) -> bool:
        """Forget all cached blocks; false, and nothing done, while requests run."""
        return self.pool.clear()

    def step(self, now_s: float) -> StepResult | None:
        """Run one step that starts at `now_s`; None when there is nothing to do."""
        if not self._sequences:
            return None
        scheduler, pool = self._scheduler, self.pool
        batch = scheduler.schedule(now_s)
        duration_s = self._duration(batch)
        output = scheduler.complete(batch, now_s + duration_s)
        for sequence in output.finished:
            del self._sequences[sequence.request_id]
        return StepResult(
            now_s,
            duration_s,
            output.emitted,
            output.first,
            output.finished,
            len(batch.decodes),
            batch.chunks,
            batch.preempted,
            pool.take_events(),
            len(scheduler.running),
            len(scheduler.waiting),
            pool.usage_ratio,
            batch.prefix_queries_tokens,
            batch.prefix_hits_tokens,
        )

    def _duration(self, batch: Batch) -> float:
        chunks: SequenceOf[tuple[int, int]] = ()
        if batch.chunks:
            chunks = [(chunk.new_tokens, chunk.context_tokens) for chunk in batch.chunks]
        step_s = self.step_time.seconds(chunks, len(batch.decodes), batch.decode_kv_tokens)
        return step_s * self.slowdown

    def _check(self, request: EmulatedRequest) -> None:
        """Refuse what vLLM would refuse, or what would wait for ever."""
        config, prompt_tokens = self.config, len(request.token_ids)
        if prompt_tokens < 1 or request.max_tokens < 1:
            raise RequestError("a request needs a prompt and max_tokens of 1 token at least")
        if prompt_tokens >= config.max_model_len:
            raise RequestError(
                f"the prompt has {prompt_tokens} tokens; this engine's context of "
                f"{config.max_model_len} leaves no room for an answer"
            )
        # The last token of an answer is never computed, so it needs no block.
        computed = min(prompt_tokens + request.max_tokens, config.max_model_len) - 1
        needed = -(-computed // config.block_size_tokens)
        usable = self.pool.capacity - config.watermark_blocks
        if needed > usable:
            raise RequestError(f"the request needs {needed} KV blocks; this engine has {usable}")

    def __repr__(self) -> str:
        return (
            f"<EngineModel: {self.num_running_reqs} running, {self.num_waiting_reqs} waiting, "
            f"{self.pool.free_count} of {self.pool.capacity} blocks free>"
        )
