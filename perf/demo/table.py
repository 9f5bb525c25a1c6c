"""The live table: what each engine did, and what decided.

In       requests as they end; the router's /engines and /metrics.
Out      lines of text. Pure.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from perf.serving.records import RequestRecord, mean_s, percentile_s
from perf.serving.report import grid

_DECISIONS = re.compile(r'^lodestar:decisions_total\{.*?reason="([^"]+)".*?\} (\S+)$', re.M)
_GAUGE = r"^{name} (\S+)$"
_HEADINGS = (
    "engine", "GPU", "requests", "hit ratio", "running", "waiting", "KV used", "TTFT mean ms",
    "TTFT P99 ms",
)  # fmt: skip


class Seen:
    """Requests that have ended, by engine."""

    def __init__(self) -> None:
        self.records: dict[str, list[RequestRecord]] = defaultdict(list)
        self.failed: list[RequestRecord] = []

    def add(self, record: RequestRecord) -> None:
        """Count a request."""
        if record.error is not None:
            self.failed.append(record)
        elif record.engine is not None:
            self.records[record.engine].append(record)

    @property
    def answered(self) -> int:
        """Requests that ended well."""
        return sum(map(len, self.records.values()))


def lines(
    seconds: float, policy: str, engines: Sequence[Mapping[str, Any]], metrics: str, seen: Seen
) -> str:
    """The table as of now."""
    rows = [_row(engine, seen.records.get(engine["engine_id"], [])) for engine in engines]
    everything = [record for records in seen.records.values() for record in records]
    rows.append(
        ("all", "", str(len(everything)), _hits(everything), "", "", "", *_ttft(everything))
    )
    reasons: dict[str, float] = defaultdict(float)
    for reason, count in _DECISIONS.findall(metrics):
        reasons[reason] += float(count)
    why = ", ".join(f"{reason} {count:.0f}" for reason, count in sorted(reasons.items()))
    version = _gauge(metrics, "lodestar:model_version")
    trusted = _gauge(metrics, "lodestar:model_trusted")
    return "\n".join(
        [
            f"{seconds:4.0f} s   policy {policy}: {why or 'no decision yet'}",
            f"         model version {'none yet' if version is None else f'{version:.0f}'}"
            f"{', trusted' if trusted else ''}; {len(seen.failed)} requests failed",
            grid([_HEADINGS, *rows]),
        ]
    )


def _row(engine: Mapping[str, Any], records: Sequence[RequestRecord]) -> tuple[str, ...]:
    load = engine["load"]
    return (
        str(engine["engine_id"]),
        str(engine["gpu"]),
        str(engine["dispatched_total"]),
        _hits(records),
        "-" if load is None else str(load["num_running_reqs"]),
        "-" if load is None else str(load["num_waiting_reqs"]),
        "-" if load is None else f"{100 * load['kv_cache_usage_ratio']:.0f} %",
        *_ttft(records),
    )


def _hits(records: Sequence[RequestRecord]) -> str:
    prompt = sum(record.prompt_tokens for record in records)
    return f"{sum(record.cached_tokens for record in records) / prompt:.2f}" if prompt else "-"


def _ttft(records: Sequence[RequestRecord]) -> tuple[str, str]:
    times_s = [record.ttft_s for record in records if record.ttft_s is not None]
    if not times_s:
        return "-", "-"
    return f"{1000 * mean_s(times_s):.0f}", f"{1000 * percentile_s(times_s, 99):.0f}"


def _gauge(metrics: str, name: str) -> float | None:
    match = re.search(_GAUGE.format(name=re.escape(name)), metrics, re.M)
    return None if match is None else float(match[1])
