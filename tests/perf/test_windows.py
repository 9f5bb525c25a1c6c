"""Windows after something happened, from samples."""

from pathlib import Path

import numpy as np
import pytest

from perf.routing.store import Store
from perf.routing.windows import main
from tests.perf.small import report_row


def samples(
    store: Store,
    cell: str,
    seed: int,
    arrived_at_s: list[float],
    ttft_s: float,
    policy: str = "lodestar",
) -> None:
    path = store.samples_path(cell, policy, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        arrived_at_s=np.array(arrived_at_s, dtype=np.float32),
        ttft_s=np.full(len(arrived_at_s), ttft_s, dtype=np.float16),
    )
    store.append(report_row(policy, seed, ttft_s, cell))


def test_each_window_is_held_against_the_same_arrivals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    arrivals = [100.0, 105.0, 112.0, 140.0]
    for seed in (1, 2):
        samples(store, "calm", seed, arrivals, 0.25)
        samples(store, "calm-restart-saved", seed, arrivals, 0.5)

    assert main([str(tmp_path), "--at", "100"]) == 0

    line = capsys.readouterr().out.splitlines()[2]
    assert line.startswith("| calm-restart-saved | lodestar | 2")
    assert line.count("0.250 s, 2.00 [2.00, 2.00]") == 3


def test_policies_are_compared_where_one_is_the_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    samples(store, "calm", 1, [100.0, 112.0, 140.0], 0.25)
    samples(store, "calm", 1, [100.0, 112.0, 140.0], 0.125, policy="lmetric")

    assert main([str(tmp_path), "--at", "100", "--reference", "lodestar"]) == 0

    (line,) = capsys.readouterr().out.splitlines()[2:]
    assert line.startswith("| calm | lmetric | 1")
    assert line.count("0.250 s, 0.50") == 3


def test_nothing_arrived_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    for cell in ("calm", "calm-restart-saved"):
        samples(store, cell, 1, [100.0, 112.0], 0.25)

    assert main([str(tmp_path), "--at", "100"]) == 2

    assert "'calm' has no arrivals from 130 s on" in capsys.readouterr().err


def test_other_arrivals_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    samples(store, "calm", 1, [100.0, 112.0, 140.0], 0.25)
    samples(store, "calm-restart-saved", 1, [101.0, 112.0, 140.0], 0.25)

    assert main([str(tmp_path), "--at", "100"]) == 2

    assert "differ in their arrivals" in capsys.readouterr().err
