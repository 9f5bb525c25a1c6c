"""Plots of a directory of results, as PNG: three per cell.

    <cell>-cdf.png      TTFT distribution per policy, all seeds together
    <cell>-time.png     mean TTFT of arrivals in windows of time, mean over seeds
    <cell>-share.png    share of requests per engine and policy, mean over seeds

Lines are in the order of mean TTFT, the best first. Needs matplotlib (extra `bench`).
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from perf.routing.store import Store
from perf.routing.tables import policies_in

_WINDOWS = 30  # over the run
_INCHES = (10.0, 5.5)
_DOTS_PER_INCH = 110
_STYLES = ("-", "--", ":")  # colours repeat after ten

Floats = npt.NDArray[np.float64]
Rows = Sequence[dict[str, Any]]
Draw = Callable[[Any, Store, Rows, list[str]], None]


def write_plots(store: Store, rows: Rows) -> list[Path]:
    """All plots; files that exist are replaced.

    Raises:
        ImportError: matplotlib is not there.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    written: list[Path] = []
    drawings: dict[str, Draw] = {"cdf": _draw_cdf, "time": _draw_time, "share": _draw_shares}
    for cell in dict.fromkeys(row["cell"] for row in rows):
        of_cell = [row for row in rows if row["cell"] == cell]
        stem = re.sub(r"[^\w.+-]+", "_", cell)
        for name, draw in drawings.items():
            path = store.directory / "plots" / f"{stem}-{name}.png"
            _plot(path, cell, draw, store, of_cell)
            written.append(path)
    return written


def best_first(rows: Rows) -> list[str]:
    """Policies by mean TTFT over their runs."""
    means = {
        policy: np.mean([r["ttft_mean_s"] or np.inf for r in rows if r["policy"] == policy])
        for policy in policies_in(rows)
    }
    return sorted(means, key=lambda policy: float(means[policy]))


def _plot(path: Path, title: str, draw: Draw, store: Store, rows: Rows) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=_INCHES)
    draw(axes, store, rows, best_first(rows))
    axes.set_title(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=_DOTS_PER_INCH)
    pyplot.close(figure)


def _draw_cdf(axes: Any, store: Store, rows: Rows, policies: list[str]) -> None:
    for policy in policies:
        parts = [
            ttft_s[arrived_s >= warmup_s]
            for arrived_s, ttft_s, warmup_s, _ in _samples(store, rows, policy)
        ]
        if parts:
            ttft_s = np.sort(np.concatenate(parts))
            shares = np.arange(1, len(ttft_s) + 1) / len(ttft_s)
            axes.plot(ttft_s, shares, label=policy, **_style(rows, policy))
    axes.set_xscale("log")
    axes.set_xlabel("TTFT (s)")
    axes.set_ylabel("share of requests")
    _finish(axes)


def _draw_time(axes: Any, store: Store, rows: Rows, policies: list[str]) -> None:
    for policy in policies:
        samples = _samples(store, rows, policy)
        curves = [window_means(arrived_s, ttft_s, end_s) for arrived_s, ttft_s, _, end_s in samples]
        if curves:
            means = np.ma.masked_invalid(np.stack(curves)).mean(
                axis=0
            )  # [seeds, windows] -> [windows]
            middles_s = (np.arange(_WINDOWS) + 0.5) * samples[0][3] / _WINDOWS
            axes.plot(middles_s, means, label=policy, **_style(rows, policy))
    axes.set_yscale("log")
    axes.set_xlabel("arrival (s)")
    axes.set_ylabel("mean TTFT (s)")
    _finish(axes)


def _draw_shares(axes: Any, store: Store, rows: Rows, policies: list[str]) -> None:
    """A field per policy and engine, in percent."""
    engines = sorted(
        {engine for row in rows for engine in row["per_engine_requests"]},
        key=lambda engine: int(engine.rpartition("-")[2]),
    )
    percent = np.array([_shares(rows, policy, engines) for policy in policies]) * 100.0
    axes.imshow(percent, cmap="Blues", aspect="auto", vmin=0.0, vmax=1.6 * percent.max())
    axes.set_xticks(np.arange(len(engines)), engines, rotation=30)
    axes.set_yticks(np.arange(len(policies)), policies, fontsize="small")
    for (line, column), value in np.ndenumerate(percent):
        axes.text(column, line, f"{value:.0f}", ha="center", va="center", fontsize="x-small")
    axes.set_xlabel("requests per engine (% of the policy's)")


def _shares(rows: Rows, policy: str, engines: Sequence[str]) -> Floats:
    mine = [row["per_engine_requests"] for row in rows if row["policy"] == policy]
    counts = np.array([[of_run.get(engine, 0) for engine in engines] for of_run in mine])
    shares: Floats = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.asarray(shares.mean(axis=0))


def window_means(arrived_s: Floats, ttft_s: Floats, duration_s: float) -> Floats:
    """Mean TTFT of the arrivals of each window, float64 [windows]; NaN without any."""
    window = np.minimum((arrived_s / duration_s * _WINDOWS).astype(int), _WINDOWS - 1)
    sums = np.bincount(window, weights=ttft_s, minlength=_WINDOWS)
    counts = np.bincount(window, minlength=_WINDOWS)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _style(rows: Rows, policy: str) -> dict[str, Any]:
    """The same in every plot of a run."""
    number = policies_in(rows).index(policy)
    return {"color": f"C{number % 10}", "linestyle": _STYLES[number // 10 % len(_STYLES)]}


def _finish(axes: Any) -> None:
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))


def _samples(store: Store, rows: Rows, policy: str) -> list[tuple[Floats, Floats, float, float]]:
    """(arrivals, TTFTs, warm-up, duration) of every run whose samples are there."""
    samples = []
    for row in rows:
        path = store.samples_path(row["cell"], row["policy"], row["seed"])
        if row["policy"] == policy and path.is_file():
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
