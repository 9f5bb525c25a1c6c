"""Plots of a directory of results, as PNG: three per cell.

    <cell>-cdf.png      TTFT distribution per policy, all seeds together
    <cell>-time.png     mean TTFT of arrivals in windows of time, mean over seeds
    <cell>-share.png    requests per engine and policy, mean over seeds

Needs matplotlib (extra `bench`).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perf.routing.store import Store
from perf.routing.tables import policies_in

_WINDOWS = 60  # over the run
_INCHES = (8.0, 5.0)
_DOTS_PER_INCH = 110

Floats = npt.NDArray[np.float64]


def write_plots(store: Store, rows: Sequence[dict[str, Any]]) -> list[Path]:
    """All plots; files that exist are replaced.

    Raises:
        ImportError: matplotlib is not there.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    written: list[Path] = []
    for cell in dict.fromkeys(row["cell"] for row in rows):
        of_cell = [row for row in rows if row["cell"] == cell]
        stem = re.sub(r"[^\w.+-]+", "_", cell)
        for name, draw in (("cdf", _draw_cdf), ("time", _draw_time), ("share", _draw_share)):
            written.append(_plot(store, of_cell, f"{stem}-{name}.png", cell, draw))
    return written


def _plot(
    store: Store, rows: Sequence[dict[str, Any]], file_name: str, title: str, draw: Any
) -> Path:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=_INCHES)
    colours = pyplot.get_cmap("tab20")
    for number, policy in enumerate(policies_in(rows)):
        mine = [row for row in rows if row["policy"] == policy]
        draw(axes, store, mine, policy, colours(number % 20), number, len(policies_in(rows)))
    axes.set_title(title)
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize="small", ncols=2)
    path = store.directory / "plots" / file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    pyplot.close(figure)
    return path


def _draw_cdf(
    axes: Any, store: Store, rows: Sequence[dict[str, Any]], policy: str, colour: Any,
    number: int, of: int,
) -> None:  # fmt: skip
    parts = [
        ttft_s[arrived_s >= warmup_s] for arrived_s, ttft_s, warmup_s, _ in _samples(store, rows)
    ]
    if not parts:
        return
    ttft_s = np.sort(np.concatenate(parts))
    axes.plot(ttft_s, np.arange(1, len(ttft_s) + 1) / len(ttft_s), label=policy, color=colour)
    axes.set_xscale("log")
    axes.set_xlabel("TTFT (s)")
    axes.set_ylabel("share of requests")


def _draw_time(
    axes: Any, store: Store, rows: Sequence[dict[str, Any]], policy: str, colour: Any,
    number: int, of: int,
) -> None:  # fmt: skip
    curves = [
        window_means(arrived_s, ttft_s, duration_s)
        for arrived_s, ttft_s, _, duration_s in _samples(store, rows)
    ]
    if not curves:
        return
    stacked = np.ma.masked_invalid(np.stack(curves))  # [seeds, windows]
    duration_s = next(d for *_, d in _samples(store, rows))
    middles = (np.arange(_WINDOWS) + 0.5) * duration_s / _WINDOWS
    axes.plot(middles, stacked.mean(axis=0), label=policy, color=colour)
    axes.set_yscale("log")
    axes.set_xlabel("arrival (s)")
    axes.set_ylabel("mean TTFT (s)")


def _draw_share(
    axes: Any, store: Store, rows: Sequence[dict[str, Any]], policy: str, colour: Any,
    number: int, of: int,
) -> None:  # fmt: skip
    ids = sorted(
        {engine for row in rows for engine in row["per_engine_requests"]},
        key=lambda engine: int(engine.rpartition("-")[2]),
    )
    shares = np.array([[row["per_engine_requests"].get(e, 0) for e in ids] for row in rows])
    shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)
    places = np.arange(len(ids)) + (number - (of - 1) / 2) * 0.8 / of
    axes.bar(places, shares.mean(axis=0), width=0.8 / of, label=policy, color=colour)
    axes.set_xticks(np.arange(len(ids)), ids, rotation=30)
    axes.set_ylabel("share of requests")


def window_means(arrived_s: Floats, ttft_s: Floats, duration_s: float) -> Floats:
    """Mean TTFT of the arrivals of each window, float64 [windows]; NaN without any."""
    window = np.minimum((arrived_s / duration_s * _WINDOWS).astype(int), _WINDOWS - 1)
    sums = np.bincount(window, weights=ttft_s, minlength=_WINDOWS)
    counts = np.bincount(window, minlength=_WINDOWS)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _samples(
    store: Store, rows: Sequence[dict[str, Any]]
) -> list[tuple[Floats, Floats, float, float]]:
    """(arrivals, TTFTs, warm-up, duration) per row whose samples are there."""
    samples = []
    for row in rows:
        path = store.samples_path(row["cell"], row["policy"], row["seed"])
        if path.is_file():
            with np.load(path) as file:
                samples.append(
                    (
                        file["arrived_at_s"].astype(np.float64),
                        file["ttft_s"].astype(np.float64),
                        float(file["warmup_s"]),
                        float(file["duration_s"]),
                    )
                )
    return samples
