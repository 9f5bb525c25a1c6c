"""Runs on disk: rows with their fields, and going on where one was interrupted."""

import json
from pathlib import Path

import numpy as np
import pytest

from lodestar_router.errors import ConfigError
from perf.routing.__main__ import main
from perf.routing.catalog import named, policies
from perf.routing.knee import KneeCache, knee_key, measure
from perf.routing.measure import row
from perf.routing.runner import run
from perf.routing.store import Store
from perf.routing.workloads.sharing import Sharing
from tests.perf.small import cell, report_row
from tests.perf.small import run as simulate

ROW_FIELDS = {
    "cell", "policy", "seed", "requests", "ttft_mean_s", "ttft_p50_s", "ttft_p90_s",
    "ttft_p99_s", "tpot_mean_s", "e2e_mean_s", "hit_ratio", "per_engine_requests",
    "decision_us_p50", "decision_us_p99", "git_commit",
}  # fmt: skip


def test_an_interrupted_run_goes_on_and_changed_cells_are_run_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seen: list[str] = []

    def go(requests_per_s: float = 8.0) -> int:
        return run(
            [cell(requests_per_s=requests_per_s, duration_s=4.0, warmup_s=1.0)],
            ["random", "lmetric"],
            [1],
            store=store,
            knees=KneeCache(None),
            jobs=1,
            progress=lambda what, done, of: seen.append(f"{what} {done}/{of}"),
        )

    assert go() == 2
    assert seen == ["small random 1 1/2", "small lmetric 1 2/2"]
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert all(json.loads(line).keys() >= ROW_FIELDS for line in lines)
    assert len(list((tmp_path / "samples").glob("*.npz"))) == 2

    # Interrupted while the second row was written.
    (tmp_path / "results.jsonl").write_text(lines[0] + "\n" + lines[1][:40])
    assert go() == 1
    assert [r["policy"] for r in store.rows()] == ["random", "lmetric"]
    assert go() == 0
    assert go(requests_per_s=9.0) == 2
    assert len(store.rows()) == 2


def test_a_row_measures_what_arrives_after_the_warm_up() -> None:
    small = cell(duration_s=10.0, warmup_s=5.0)

    simulation = simulate(small)

    found = row(small, simulation)
    counted = [f for f in simulation.flights if f.arrived_at_s >= 5.0]
    assert found["requests"] == len(counted) < len(simulation.flights)
    assert found["ttft_mean_s"] == pytest.approx(np.mean([f.ttft_s for f in counted]), abs=1e-6)
    assert sum(found["per_engine_requests"].values()) == len(counted)
    prompt_tokens = sum(len(f.ask.token_ids) for f in counted)
    hits = sum(f.cached_tokens for f in counted) / prompt_tokens
    assert found["hit_ratio"] == pytest.approx(hits, abs=1e-6)


def test_a_knee_is_measured_once_and_kept(tmp_path: Path) -> None:
    workload = Sharing(prompt_tokens=(500,), share=(0.5,), output_tokens=(4, 0))
    small = cell(workload=workload)
    path = tmp_path / "knees.json"

    knee = measure(small, trial_s=12.0)
    KneeCache(path).put(small, knee)

    # Two A30s need about 80 ms for 500 tokens each.
    assert 10.0 < knee < 80.0
    assert KneeCache(path).known(small) == knee
    assert KneeCache(path).known(cell()) is None
    assert knee_key(small) != knee_key(cell())


def test_policies_are_named_one_by_one_or_together() -> None:
    assert named("lmetric,random") == ["lmetric", "random"]
    assert named("live,random")[-1] in policies()
    with pytest.raises(ConfigError, match=r"unknown policy 'magic'; known: .*lmetric"):
        named("magic")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param("- {name: x}", "cell 'x': 'engines' is missing", id="field-missing"),
        pytest.param("- [", "is not YAML", id="not-yaml"),
        pytest.param("", "expected a list of cells", id="empty"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, reason: str
) -> None:
    path = tmp_path / "cells.yaml"
    path.write_text(content)

    code = main(["run", str(path), "--policies", "random", "--out", str(tmp_path / "out")])

    message = capsys.readouterr().err
    assert code == 2
    assert message.startswith("error: ")
    assert reason in message
    assert message.count("\n") == 1


def test_a_report_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "no results in" in capsys.readouterr().err


def test_a_report_of_some_cells_leaves_the_whole_one_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    for name in ("x-075", "x-090"):
        store.append(report_row("lmetric", 1, 1.0, name))
    assert main(["report", str(tmp_path), "--no-plots"]) == 0
    whole = (tmp_path / "report.md").read_text()
    capsys.readouterr()

    assert main(["report", str(tmp_path), "--no-plots", "--cells", "*-075"]) == 0

    printed = capsys.readouterr().out
    assert "## x-075" in printed
    assert "x-090" not in printed
    assert (tmp_path / "report.md").read_text() == whole
    assert main(["report", str(tmp_path), "--cells", "y*"]) == 2
    assert "no results of cells 'y*'" in capsys.readouterr().err
