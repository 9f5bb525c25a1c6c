"""A recording and its replays, side by side; values only.

    difference = virtual / real - 1        of the mean TTFT, virtual averaged over seeds

In       a Recording; rows of perf.agreement.replay.
Out      a line of results.jsonl; a markdown table of such lines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, median
from typing import Any

import numpy as np

from perf.agreement.recording import MeasuredEngine, Recording, ttft_inside_s

NUMBERS = (
    "ttft_mean_s", "ttft_p50_s", "ttft_p99_s", "ttft_inside_mean_s", "tpot_mean_s", "hit_ratio",
)  # fmt: skip

_HEADINGS = (
    "cell", "policy", "requests", "req/s (load)", "busy before", "", "mean TTFT ms", "P50 ms",
    "P99 ms", "inside engines ms", "mean TPOT ms", "hit ratio", "share per engine",
    "mean TTFT differs by",
)  # fmt: skip


def real_numbers(recording: Recording) -> dict[str, Any]:
    """What the client and the engines measured, named as in a replay's row."""
    requests = recording.requests
    ttft_s = [request.ttft_s for request in requests]
    tpot_s = [(r.e2e_s - r.ttft_s) / (r.output_tokens - 1) for r in requests if r.output_tokens > 1]
    prompt_tokens = sum(engine.prompt_tokens for engine in recording.engines)
    cached_tokens = sum(engine.cached_tokens for engine in recording.engines)
    return {
        "ttft_mean_s": fmean(ttft_s),
        "ttft_p50_s": float(np.percentile(ttft_s, 50)),
        "ttft_p99_s": float(np.percentile(ttft_s, 99)),
        "ttft_inside_mean_s": ttft_inside_s(recording.engines),
        "tpot_mean_s": fmean(tpot_s) if tpot_s else 0.0,
        "hit_ratio": cached_tokens / max(prompt_tokens, 1),
        "shares": [engine.requests / len(requests) for engine in recording.engines],
    }


def compare(
    recording: Recording,
    replays: Sequence[Mapping[str, Any]],
    with_default_delays: Sequence[Mapping[str, Any]],
    *,
    limit: float,
) -> dict[str, Any]:
    """One line of the results; `limit` is the difference that is tolerated, as a fraction."""
    real = real_numbers(recording)
    means_s = [replay["ttft_mean_s"] for replay in replays]
    virtual = {name: fmean(replay[name] for replay in replays) for name in NUMBERS}
    difference = virtual["ttft_mean_s"] / real["ttft_mean_s"] - 1.0
    default_s = fmean(replay["ttft_mean_s"] for replay in with_default_delays)
    return {
        "cell": recording.cell,
        "fleet": recording.fleet,
        "policy": recording.policy,
        "seed": recording.seed,
        "requests": len(recording.requests),
        "requests_per_s": recording.requests_per_s,
        "load": recording.load,
        "real": _rounded(real),
        "virtual": _rounded(virtual | {"shares": _shares(replays)}),
        "virtual_ttft_mean_range_s": [round(min(means_s), 6), round(max(means_s), 6)],
        "virtual_seeds": len(replays),
        "difference": round(difference, 4),
        "difference_with_default_delays": round(default_s / real["ttft_mean_s"] - 1.0, 4),
        "limit": limit,
        "agrees": abs(difference) <= limit,
        "overhead_s": _rounded(asdict(recording.overhead)),
        "load_source": recording.load_source,
        "busy_before": recording.busy_before,
        "measured": [_described(engine) for engine in recording.measured],
    }


def _shares(replays: Sequence[Mapping[str, Any]]) -> list[float]:
    """Of requests, per engine, over all replays."""
    counts = np.array([list(replay["per_engine_requests"].values()) for replay in replays])
    return [float(share) for share in counts.sum(axis=0) / counts.sum()]


def _described(engine: MeasuredEngine) -> dict[str, float]:
    """Coefficients, and how far the measured steps lie from them."""
    off = [abs(error) for error in engine.fit_errors]
    fitted = asdict(engine.step_time) | {"fit_error_median": median(off), "fit_error_max": max(off)}
    return {name: float(f"{value:.4g}") for name, value in fitted.items()}


def _rounded(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Microseconds and millionths: the rest is noise of floating point."""
    return {
        name: [round(entry, 6) for entry in value] if isinstance(value, list) else round(value, 6)
        for name, value in numbers.items()
    }


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: two rows per result, as measured and in virtual time.

    `busy before` is the load average when a run began: above 1 on two cores, other
    work disturbed it.
    """
    rows = [row for result in results for row in _rows(result)]
    return "\n".join(
        "| " + " | ".join(cells) + " |" for cells in [_HEADINGS, ["---"] * len(_HEADINGS), *rows]
    )


def _rows(result: Mapping[str, Any]) -> list[list[str]]:
    low, high = (f"{1000 * value:.0f}" for value in result["virtual_ttft_mean_range_s"])
    first = [
        result["cell"],
        result["policy"],
        str(result["requests"]),
        f"{result['requests_per_s']:.2f} ({result['load']:.2f})",
        f"{result['busy_before']:.1f}",
    ]
    difference = f"{100 * result['difference']:+.1f} % (limit {100 * result['limit']:.0f} %)"
    return [
        [*first, "real", *_cells(result["real"]), ""],
        [
            "",
            "",
            "",
            "",
            "",
            "virtual",
            *_cells(result["virtual"], f" ({low}..{high})"),
            difference,
        ],
    ]


def _cells(numbers: Mapping[str, Any], spread: str = "") -> list[str]:
    times = [numbers[name] for name in NUMBERS[:-1]]
    mean, *others = (f"{1000 * value:.1f}" for value in times)
    shares = " ".join(f"{share:.2f}" for share in numbers["shares"])
    return [mean + spread, *others, f"{numbers['hit_ratio']:.3f}", shares]
