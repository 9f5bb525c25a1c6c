"""Gauges and log lines about engines, in production-stack's words."""

import pytest

from lodestar_router.accounting import Statistics
from lodestar_router.config import parse
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.types import Ending, EngineId, EngineSpec
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.stack_gauges import stack_rows, stats_lines
from lodestar_router.tasks import cancel, spawn
from tests.factories import load
from tests.proxy.harness import until

A = EngineId("a:8000")


class Untrained:
    trainer_pid = None


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet()
    fleet.add(EngineSpec(engine_id=A, url="http://a:8000"))
    fleet.mark_up(A, [{"id": "m"}], 0.0)
    return fleet


def shown(fleet: Fleet, metrics: Metrics, now_s: float = 10.0) -> dict[str, float]:
    rows = list(stack_rows(fleet, metrics.stack, now_s))
    assert all(labels == {"server": "http://a:8000"} for _, _, labels, _ in rows)
    return {name.removeprefix("vllm:"): value for name, _, _, value in rows}


def test_engine_that_did_nothing_yet_has_no_means(fleet: Fleet) -> None:
    assert shown(fleet, Metrics()) == {
        "healthy_pods_total": 1.0,
        "num_requests_running": 0,
        "num_prefill_requests": 0,
        "num_decoding_requests": 0,
        "num_requests_swapped": 0,
        "current_qps": 0.0,
    }


def test_requests_in_flight_are_told_apart(fleet: Fleet) -> None:
    tickets = [fleet.dispatch(A, prompt_tokens=9, cached_prefix_tokens=0) for _ in range(3)]
    tickets[0].first_token()

    gauges = shown(fleet, Metrics())

    assert gauges["num_requests_running"] == 3
    assert (gauges["num_prefill_requests"], gauges["num_decoding_requests"]) == (2, 1)


def test_what_ended_lately_is_averaged(fleet: Fleet) -> None:
    metrics = Metrics()
    account = metrics.stack.sent(fleet[A].spec, "m", 5.0)
    account.ended(7.0, Ending.COMPLETED, latency_s=2.0, error=None)
    account.recent.decoded(7.0, decode_s=1.0, tokens=11)

    gauges = shown(fleet, metrics)

    assert (gauges["avg_latency"], gauges["avg_decoding_length"]) == (2.0, 1.0)
    assert gauges["avg_itl"] == pytest.approx(0.1)
    assert gauges["current_qps"] == pytest.approx(1 / 5)


def test_cache_counts_are_the_engine_s_own(fleet: Fleet) -> None:
    fleet[A].cache_tokens = (400, 100)

    gauges = shown(fleet, Metrics())

    assert gauges["gpu_prefix_cache_queries_total"] == 400
    assert gauges["gpu_prefix_cache_hits_total"] == 100
    assert gauges["gpu_prefix_cache_hit_rate"] == 0.25


@pytest.mark.parametrize("trouble", ["down", "held", "circuit"])
def test_engine_that_takes_no_requests_is_not_healthy(fleet: Fleet, trouble: str) -> None:
    if trouble == "down":
        fleet.mark_down(A, "gone", 1.0)
    elif trouble == "held":
        fleet.hold(A, "somebody", "because")
    else:
        fleet[A].circuit.trip("hangs", 1.0)

    assert shown(fleet, Metrics())["healthy_pods_total"] == 0.0


def test_line_says_what_is_known(fleet: Fleet) -> None:
    metrics = Metrics()
    fleet.observe_load(A, load(num_running_reqs=2, num_waiting_reqs=1, kv_cache_usage_ratio=0.5))
    fleet.dispatch(A, prompt_tokens=9, cached_prefix_tokens=0)
    fleet[A].cache_tokens = (400, 100)
    metrics.stack.sent(fleet[A].spec, "m", 0.0)

    (line,) = stats_lines(fleet, metrics.stack, 10.0)

    assert line == (
        "http://a:8000: up; engine running 2, waiting 1, KV cache 50%; cache hits 25%; "
        "sent 0.10/s, in flight 1 (1 in prefill), 1 since it joined; models m"
    )


async def test_lines_come_at_the_interval_and_only_if_wanted(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    statistics = Statistics(fleet, Metrics(), lambda: 1.0, Untrained())
    flags = ["--engines", "http://a:8000", "--log-stats-interval", "0.1"]
    await statistics.log(parse(flags, {}))
    assert caplog.records == []

    task = spawn(statistics.log(parse([*flags, "--log-stats"], {})), name="statistics")
    await until(lambda: len(caplog.records) == 2)
    await cancel(task)

    assert caplog.messages[0].startswith("http://a:8000: up; sent ")
