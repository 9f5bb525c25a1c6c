"""Which sequences compute how many tokens in a step: vLLM V1's scheduler.

    budget = max_num_batched_tokens
    1. running sequences, oldest admission first, take min(what they lack, budget);
       one that gets no block preempts the youngest, itself at last
    2. if nobody was preempted, waiting ones are admitted in order until the first
       that does not fit

A preempted sequence drops its blocks, keeps its tokens and waits in front of all.

The budget never runs out before the last running sequence: whoever was admitted
found some left after all others had theirs, and no sequence's need grows later.
So only blocks can be short, and nobody that runs sits out a step.

In       sequences, added and dropped by EngineModel.
Out      schedule(now_s) -> Batch; complete(batch, end_s) -> what came out of it.
Cost     a step of decodes only: about 5 us plus 2 us per block begun or filled;
         one where blocks run out or a prefill stands before decodes: about 1 us
         per running sequence.
Errors   none: what can never fit is refused before it gets here.
Source   vllm/v1/core/sched/scheduler.py and kv_cache_manager.py at v0.32.0.

No clock: times are arguments.
"""

from collections import deque
from operator import attrgetter

from lodestar_router.emulator.batch import Batch, Chunk, Output
from lodestar_router.emulator.block_pool import BlockPool
from lodestar_router.emulator.config import EngineModelConfig
from lodestar_router.emulator.decode_set import DecodeSet
from lodestar_router.emulator.sequence import Sequence

_by_order = attrgetter("order")


class Scheduler:
    """Queues and blocks of one engine."""

    def __init__(self, config: EngineModelConfig, pool: BlockPool) -> None:
        self._config = config
        self._pool = pool
        self._size = config.block_size_tokens
        self._caching = config.prefix_caching
        self._watermark = config.watermark_blocks
        self._decodes = DecodeSet(config.block_size_tokens)
        self._prefilling: dict[Sequence, None] = {}  # running, prompt not yet computed
        self.running: dict[Sequence, None] = {}  # in the order of admission
        self.waiting: deque[Sequence] = deque()
        self._admissions = 0
        self._stuck: tuple[Sequence, int, int | None] | None = None  # see _is_stuck

    def schedule(self, now_s: float) -> Batch:
        """Decide a step, and take the blocks it needs."""
        batch = Batch()
        budget = self._schedule_running(batch)
        if not batch.preempted and self.waiting:
            self._admit(batch, budget, now_s)
        return batch

    def complete(self, batch: Batch, end_s: float) -> Output:
        """The step has run: each sequence that computed all it had makes a token."""
        ended = self._decodes.advance() if batch.decodes else []
        if not (batch.chunks or ended):
            return Output(batch.decodes, [], [])
        emitted, first = list(batch.decodes), []
        in_order = not self._prefilling
        for chunk in batch.chunks:
            sequence = chunk.sequence
            sequence.offset_tokens += chunk.new_tokens
            if sequence.offset_tokens < sequence.total_tokens:
                self._prefilling[sequence] = None
                continue
            self._prefilling.pop(sequence, None)
            emitted.append(sequence)
            if sequence.first_token_at_s is None:
                sequence.first_token_at_s = end_s
                first.append(sequence)
            if sequence.total_tokens + 1 < sequence.end_tokens:
                self._decodes.add(sequence)
            else:
                sequence.total_tokens += 1
                ended.append(sequence)
        if not in_order:
            emitted.sort(key=_by_order)
        ended.sort(key=_by_order)
        for sequence in ended:
            sequence.finished_at_s = end_s
            del self.running[sequence]
            self._release(sequence)
        return Output(emitted, first, ended)

    def drop(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it stands."""
        if sequence not in self.running:
            self.waiting.remove(sequence)
            return
        self._stop(sequence)

    def _schedule_running(self, batch: Batch) -> int:
        """Schedule running sequences; the budget that is left."""
        decodes, prefilling = self._decodes, self._prefilling
        budget = self._config.max_num_batched_tokens
        needing = decodes.needing_block()
        short = needing and len(needing) > self._pool.free_count
        if short or (prefilling and not self._only_last_prefills()):
            return self._schedule_one_by_one(batch, budget)
        if decodes.count:
            self._decode_all(batch, needing)
            budget -= decodes.count
        if not prefilling:
            return budget
        for sequence in [*prefilling]:
            new_tokens = self._chunk_tokens(sequence, budget)
            if not self._extend(sequence, new_tokens):
                self._preempt(sequence, batch)
                break
            batch.chunks.append(Chunk(sequence, new_tokens, sequence.offset_tokens, False))
            budget -= new_tokens
        return budget

    def _only_last_prefills(self) -> bool:
        return len(self._prefilling) == 1 and next(reversed(self.running)) in self._prefilling

    def _decode_all(self, batch: Batch, needing: dict[Sequence, None]) -> None:
        """Every decoding sequence computes a token, and the pool has the blocks for it."""
        decodes, pool = self._decodes, self._pool
        batch.decodes = [*self.running]
        if self._prefilling:
            batch.decodes.pop()
        batch.decode_kv_tokens = decodes.kv_tokens
        if not self._caching:
            for sequence in needing:
                sequence.blocks += pool.allocate(1)
            return
        filling = decodes.filling_block()
        if not (needing or filling):
            return
        due = [*needing, *filling]
        if len(due) > 1:
            due.sort(key=_by_order)
        for sequence in due:
            if sequence in needing:
                sequence.blocks += pool.allocate(1)
            else:
                pool.store(sequence, len(sequence.blocks))

    def _schedule_one_by_one(self, batch: Batch, budget: int) -> int:
        """The general case: blocks may run out between two sequences."""
        ordered = sorted(self.running, key=_by_order)
        done = 0
        while done < len(ordered):
            sequence = ordered[done]
            new_tokens = self._chunk_tokens(sequence, budget)
            while not self._extend(sequence, new_tokens):
                victim = ordered.pop()
                self._preempt(victim, batch)
                if victim is sequence:
                    break
            else:
                if sequence.decoding is not None:
                    batch.decodes.append(sequence)
                    batch.decode_kv_tokens += sequence.computed_tokens
                else:
                    context = sequence.offset_tokens
                    batch.chunks.append(Chunk(sequence, new_tokens, context, False))
                budget -= new_tokens
                done += 1
        return budget

    def _chunk_tokens(self, sequence: Sequence, budget: int) -> int:
        """How many tokens a sequence computes next."""
        return min(sequence.num_tokens - sequence.computed_tokens, self._longest_chunk(), budget)

    def _longest_chunk(self) -> int:
        """The threshold protects other sequences; without any it does not apply."""
        threshold = self._config.long_prefill_token_threshold
        if threshold and len(self.running) + len(self.waiting) > 1:
            return threshold
        return self._config.max_num_batched_tokens

    def _extend(self, sequence: Sequence, new_tokens: int) -> bool:
        """Give a running sequence the blocks for its next tokens, if there are enough."""
        reach = sequence.computed_tokens + new_tokens
        needed = -(-reach // self._size) - len(sequence.blocks)
        if needed > self._pool.free_count:
            return False
        sequence.blocks += self._pool.allocate(needed)
        if self._caching:
            self._pool.store(sequence, reach // self._size)
        return True

    def _admit(self, batch: Batch, budget: int, now_s: float) -> None:
        """Let waiting sequences in; the first that does not fit stops all behind it."""
        waiting, longest_chunk = self.waiting, self._longest_chunk()
        max_num_seqs, cuts_prompts = self._config.max_num_seqs, self._config.cuts_prompts
        while waiting and budget and len(self.running) < max_num_seqs:
            sequence = waiting[0]
            if self._is_stuck(sequence):
                return
            hits = self._cached_blocks(sequence)
            found_tokens = len(hits) * self._size
            context = self._context_tokens(sequence, hits)
            new_tokens = min(sequence.total_tokens - context, longest_chunk)
            if new_tokens > budget and not cuts_prompts:
                return
            new_tokens = min(new_tokens, budget)
            if not self._fits(sequence, hits, context + new_tokens):
                self._note_stuck(sequence, len(hits))
                return
            waiting.popleft()
            self._start(sequence, hits, now_s)
            self._extend(sequence, new_tokens)
            if not sequence.preemptions and self._caching:
                batch.prefix_queries_tokens += sequence.total_tokens
                batch.prefix_hits_tokens += found_tokens
            batch.chunks.append(Chunk(sequence, new_tokens, context, True))
            budget -= new_tokens

    def _cached_blocks(self, sequence: Sequence) -> list[int]:
        """Blocks that need no computing; the last token is always computed."""
        if not self._caching:
            return []
        return self._pool.lookup(sequence.keys, (sequence.total_tokens - 1) // self._size)

    def _context_tokens(self, sequence: Sequence, hits: list[int]) -> int:
        """Tokens that need no computing: found, or all but the last of a prompt that was sent."""
        if sequence.transferred and not sequence.preemptions:
            return sequence.total_tokens - 1
        return len(hits) * self._size

    def _fits(self, sequence: Sequence, hits: list[int], reach: int) -> bool:
        """Whether the pool can hold a waiting sequence's first chunk, or all of it."""
        if self._config.reserve_full_sequence:
            reach = sequence.total_tokens
        blocks = -(-reach // self._size)
        spare = self._pool.free_count - self._watermark
        if blocks <= spare:
            return True
        return blocks - len(hits) + self._pool.idle(hits) <= spare

    def _note_stuck(self, sequence: Sequence, hits: int) -> None:
        """A sequence that had this many blocks cached did not fit."""
        limit = min((sequence.total_tokens - 1) // self._size, len(sequence.keys))
        next_key = sequence.keys[hits] if hits < limit else None
        if self._config.reserve_full_sequence:  # else what it needs depends on the budget
            self._stuck = sequence, self._pool.releases, next_key

    def _is_stuck(self, sequence: Sequence) -> bool:
        """Whether a sequence that did not fit needs no new look.

        Until blocks are given back, free ones get fewer by at least as many as fewer are
        needed; unless its next block has been cached by another sequence.
        """
        if self._stuck is None or self._stuck[0] is not sequence:
            return False
        _, releases, next_key = self._stuck
        if releases != self._pool.releases:
            return False
        return next_key is None or not self._pool.keeps(next_key)

    def _start(self, sequence: Sequence, hits: list[int], now_s: float) -> None:
        self._pool.share(hits)
        sequence.blocks = hits
        sequence.stored_blocks = len(hits)
        sequence.offset_tokens = self._context_tokens(sequence, hits)
        self._admissions += 1
        sequence.order = self._admissions
        self.running[sequence] = None
        if sequence.admitted_at_s is None:
            sequence.admitted_at_s = now_s
            sequence.cached_tokens = len(hits) * self._size

    def _preempt(self, sequence: Sequence, batch: Batch) -> None:
        self._stop(sequence)
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)
        batch.preempted.append(sequence)

    def _stop(self, sequence: Sequence) -> None:
        """A running sequence loses its place and its blocks, and keeps its tokens."""
        del self.running[sequence]
        if sequence.decoding is not None:
            self._decodes.remove(sequence)
        else:
            self._prefilling.pop(sequence, None)
        self._release(sequence)
        sequence.offset_tokens = 0

    def _release(self, sequence: Sequence) -> None:
        self._pool.release(sequence.blocks, sequence.stored_blocks)
        sequence.blocks = []
        sequence.stored_blocks = 0
