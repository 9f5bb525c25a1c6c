"""A recording in virtual time is the run it was made from."""

from pathlib import Path

import pytest

from perf.agreement.recording import Overhead, load
from perf.agreement.replay import arrivals, emulated_groups, local_delays, replay
from perf.routing.cells import Delays
from perf.routing.measure import row
from perf.routing.plan import make_plan
from tests.perf.agreement.recordings import MEASURED, recording, sent
from tests.perf.small import cell, run_plan

NO_DELAYS = Delays(tokenize_s=0.0, network_s=0.0, engine_overhead_s=0.0)


def test_a_simulated_run_is_repeated() -> None:
    small = cell(warmup_s=0.0)
    plan = make_plan(small, None, 1)
    original = row(small, run_plan(small, plan))
    recorded = recording(
        [sent(ask.at_s, ask.token_ids.tolist(), output=ask.output_tokens) for ask in plan]
    )

    again = replay(recorded, seed=1, delays=small.delays)

    compared = ("requests", "ttft_mean_s", "ttft_p99_s", "tpot_mean_s", "per_engine_requests")
    assert original["hit_ratio"] > 0.1
    assert {name: again[name] for name in (*compared, "hit_ratio")} == {
        name: original[name] for name in (*compared, "hit_ratio")
    }


def test_a_measured_engine_takes_the_time_that_was_fitted() -> None:
    recorded = recording(
        [sent(0.0, range(100), output=3)],
        fleet="cpu",
        measured=[MEASURED],
        overhead=Overhead(client_s=0.003, router_s=0.004),
    )

    numbers = replay(recorded, seed=1, delays=local_delays(recorded))

    prefill_s = 0.010 + 0.002 + 100 * 1e-4
    assert numbers["ttft_inside_mean_s"] == pytest.approx(prefill_s)
    assert numbers["ttft_mean_s"] == pytest.approx(0.003 + 0.004 + prefill_s)
    assert numbers["tpot_mean_s"] == pytest.approx(0.011)


def test_cached_blocks_have_the_size_of_the_measured_engine() -> None:
    recorded = recording(
        [sent(0.0, range(100)), sent(5.0, range(100))], fleet="cpu", measured=[MEASURED]
    )

    numbers = replay(recorded, seed=1, delays=NO_DELAYS)

    assert numbers["hit_ratio"] == pytest.approx(96 / 200)


def test_requests_arrive_in_order_of_time() -> None:
    recorded = recording([sent(2.0, [1, 2]), sent(0.5, [3])])

    plan = arrivals(recorded)

    assert [(ask.at_s, ask.number, ask.token_ids.tolist()) for ask in plan] == [
        (0.5, 0, [3]),
        (2.0, 1, [1, 2]),
    ]


def test_a_fleet_is_that_of_the_routers_flag() -> None:
    groups = emulated_groups("2xA30,1xV100")

    assert [(group.gpu, group.count) for group in groups] == [("A30", 2), ("V100", 1)]


@pytest.mark.parametrize(("source", "period_s"), [("metrics", 0.25), ("scheduler_stats", None)])
def test_loads_come_as_they_came(source: str, period_s: float | None) -> None:
    assert local_delays(recording([], load_source=source)).load_period_s == period_s


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    recorded = recording([sent(0.0, [1, 2, 3])], measured=[MEASURED])

    recorded.save(tmp_path / "deep" / "recording.json.gz")

    assert load(tmp_path / "deep" / "recording.json.gz") == recorded
