"""The scheduler of vLLM V0 without chunked prefill.

    a step is all prefills, of whole prompts, if at least one can be admitted,
    and all decodes otherwise

So every arrival stalls the answers in progress. A prompt is admitted while the
pool keeps a watermark free. Age is time of arrival, not of admission: the latest
arrival is preempted first.

In, out  as `scheduler.py`.
Source   vllm/core/scheduler.py (_schedule_default) as of mid 2024. Left out:
         swapping, and V0's rule that a decode needs one free block even when it
         starts none. Block reuse order is V1's: V0 sent no events.
"""

from lodestar_router.emulator.batch import Batch
from lodestar_router.emulator.scheduler import Scheduler
from lodestar_router.emulator.sequence import Sequence


class PrefillFirstScheduler(Scheduler):
    """Admission before decodes, never both."""

    def schedule(self, now_s: float) -> Batch:
        """Decide a step, and take the blocks it needs."""
        batch = Batch()
        if self.waiting:
            self._admit(batch, self._config.max_num_batched_tokens, now_s)
        if not batch.chunks:
            self._schedule_running(batch)
        return batch

    def _start(self, sequence: Sequence, hits: list[int], now_s: float) -> None:
        arrival_order = sequence.order
        super()._start(sequence, hits, now_s)
        sequence.order = arrival_order
