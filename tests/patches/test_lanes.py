import msgspec
import pytest
from lodestar_vllm_stats.lanes import MAX_FINISHED, Lane

from lodestar_router.engines.stats_wire import FinishedRequest, SchedulerStats, decode
from tests.patches.vllm_fakes import (
    FakeFinishedRequest,
    FakeIterationDetails,
    FakeIterationStats,
    FakePrefixCacheStats,
    FakePromptTokenStats,
    FakeSchedulerStats,
)


def lane() -> Lane:
    return Lane(publisher="p", engine_index=3, now_s=10.0)


def taken(lane: Lane, now_s: float = 10.0) -> SchedulerStats:
    """The next message, as the router reads it."""
    return decode(msgspec.msgpack.encode(lane.take(now_s=now_s, sent_at_s=1000.0)))


def test_a_lane_that_never_stepped_reports_an_idle_rank_as_old_as_itself() -> None:
    stats = taken(lane(), now_s=12.5)

    assert (stats.publisher, stats.engine_index, stats.seq) == ("p", 3, 1)
    assert (stats.num_running_reqs, stats.num_waiting_reqs, stats.steps_total) == (0, 0, 0)
    assert stats.state_age_s == 2.5
    assert stats.sent_at_s == 1000.0


def test_waiting_counts_deferred_requests_as_the_metrics_page_does() -> None:
    one = lane()

    one.record(
        FakeSchedulerStats(
            num_running_reqs=4,
            num_waiting_reqs=2,
            num_skipped_waiting_reqs=3,
            kv_cache_usage=0.25,
        ),
        None,
        11.0,
    )

    stats = taken(one, now_s=11.5)
    assert (stats.num_running_reqs, stats.num_waiting_reqs) == (4, 5)
    assert stats.kv_cache_usage_ratio == 0.25
    assert stats.state_age_s == 0.5


def test_totals_add_up_over_steps_and_the_load_is_the_latest() -> None:
    one = lane()
    prompt = FakePromptTokenStats(computed=40, cached_tokens=60, total=100)

    for running in (2, 1):
        one.record(
            FakeSchedulerStats(
                num_running_reqs=running, prefix_cache_stats=FakePrefixCacheStats(100, 60)
            ),
            FakeIterationStats(prompt, num_generation_tokens=2, num_preempted_reqs=1),
            11.0,
        )

    stats = taken(one)
    assert stats.num_running_reqs == 1
    assert stats.steps_total == 2
    assert (stats.prompt_tokens_total, stats.cached_prompt_tokens_total) == (200, 120)
    assert stats.generation_tokens_total == 4
    assert stats.preemptions_total == 2
    assert stats.prefix_cache_queries_tokens_total == 200
    assert stats.prefix_cache_hits_tokens_total == 120
    assert stats.step_scheduled_tokens == 42


def test_iteration_details_give_the_exact_tokens_of_the_step() -> None:
    one = lane()

    one.record(
        FakeSchedulerStats(iteration_details=FakeIterationDetails(2048, 7)),
        FakeIterationStats(num_generation_tokens=7),
        11.0,
    )

    stats = taken(one)
    assert (stats.step_prefill_tokens, stats.step_generation_tokens) == (2048, 7)


def test_a_step_without_outputs_scheduled_nothing_that_is_known() -> None:
    one = lane()
    one.record(FakeSchedulerStats(), FakeIterationStats(num_generation_tokens=5), 11.0)

    one.record(FakeSchedulerStats(), None, 11.1)

    assert taken(one).step_scheduled_tokens == 0


def test_outputs_without_scheduler_stats_leave_the_load_and_its_age() -> None:
    one = lane()
    one.record(FakeSchedulerStats(num_running_reqs=3), None, 11.0)

    one.record(None, FakeIterationStats(finished_requests=[FakeFinishedRequest()]), 13.0)

    stats = taken(one, now_s=13.0)
    assert stats.num_running_reqs == 3
    assert stats.state_age_s == 2.0
    assert len(stats.finished) == 1


def test_finished_requests_are_sent_once() -> None:
    one = lane()
    one.record(None, FakeIterationStats(finished_requests=[FakeFinishedRequest()]), 11.0)

    first, second = taken(one), taken(one)

    assert first.finished == (
        FinishedRequest(
            queue_s=0.1,
            prefill_s=0.2,
            decode_s=0.15,
            e2e_s=0.5,
            prompt_tokens=100,
            generation_tokens=16,
            cached_tokens=64,
        ),
    )
    assert second.finished == ()
    assert (first.seq, second.seq) == (1, 2)


def test_phases_that_an_aborted_request_never_reached_count_zero() -> None:
    one = lane()
    aborted = FakeFinishedRequest(queued_time=-81.5, prefill_time=-3.0, decode_time=0.0)

    one.record(None, FakeIterationStats(finished_requests=[aborted]), 11.0)

    assert (taken(one).finished[0].queue_s, taken(one).finished) == (0.0, ())


def test_finished_requests_are_bounded_and_the_oldest_go() -> None:
    one = lane()
    many = [FakeFinishedRequest(num_prompt_tokens=n) for n in range(MAX_FINISHED + 5)]

    one.record(None, FakeIterationStats(finished_requests=many), 11.0)

    stats = taken(one)
    assert len(stats.finished) == MAX_FINISHED
    assert stats.finished[0].prompt_tokens == 5
    assert stats.finished_dropped_total == 5


def test_a_step_that_cannot_be_read_changes_nothing_and_silences_the_lane() -> None:
    one = lane()
    odd = FakeIterationStats(finished_requests=[object()])  # type: ignore[list-item]

    with pytest.raises(AttributeError):
        one.record(FakeSchedulerStats(num_running_reqs=9), odd, 11.0)

    assert not one.is_due(99.0, heartbeat_s=0.25)
    one.record(FakeSchedulerStats(), None, 99.0)
    assert one.is_due(99.0, heartbeat_s=0.25)
    assert (taken(one).num_running_reqs, taken(one).steps_total) == (0, 1)


@pytest.mark.parametrize(
    ("news", "now_s", "due"),
    [
        pytest.param(True, 11.001, True, id="news"),
        pytest.param(False, 11.1, False, id="nothing-new"),
        pytest.param(False, 11.25, True, id="heartbeat"),
    ],
)
def test_a_message_is_due_on_news_or_after_a_heartbeat(news: bool, now_s: float, due: bool) -> None:
    one = lane()
    taken(one, now_s=11.0)
    if news:
        one.record(FakeSchedulerStats(), None, 11.0)

    assert one.is_due(now_s, heartbeat_s=0.25) is due
