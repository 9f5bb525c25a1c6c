"""Builders of scheduler stats, so that a test names only what it is about."""

from lodestar_router.engines.stats_wire import FinishedRequest, SchedulerStats


def scheduler_stats(
    *,
    publisher: str = "p",
    engine_index: int = 0,
    seq: int = 1,
    state_age_s: float = 0.0,
    num_running_reqs: int = 0,
    num_waiting_reqs: int = 0,
    kv_cache_usage_ratio: float = 0.0,
    finished: tuple[FinishedRequest, ...] = (),
) -> SchedulerStats:
    return SchedulerStats(
        publisher=publisher,
        engine_index=engine_index,
        seq=seq,
        sent_at_s=1_700_000_000.0,
        state_age_s=state_age_s,
        num_running_reqs=num_running_reqs,
        num_waiting_reqs=num_waiting_reqs,
        kv_cache_usage_ratio=kv_cache_usage_ratio,
        step_prefill_tokens=0,
        step_generation_tokens=0,
        steps_total=seq,
        prompt_tokens_total=0,
        cached_prompt_tokens_total=0,
        generation_tokens_total=0,
        preemptions_total=0,
        prefix_cache_queries_tokens_total=0,
        prefix_cache_hits_tokens_total=0,
        finished=finished,
    )


def finished(*, cached_tokens: int = 64) -> FinishedRequest:
    return FinishedRequest(
        queue_s=0.25,
        prefill_s=0.5,
        decode_s=2.0,
        e2e_s=2.75,
        prompt_tokens=100,
        generation_tokens=16,
        cached_tokens=cached_tokens,
    )
