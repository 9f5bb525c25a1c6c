"""The /metrics page of an emulated engine, under vLLM's names.

In       the steps of an engine.
Out      Prometheus text with the metrics of vLLM that describe load, caches,
         tokens and latencies; labels and buckets as vLLM has them.
Cost     about 10 us per step; a page about 0.3 ms, kept until the next step.
Errors   none.
Source   vllm/v1/metrics/loggers.py at v0.32.0, and a page of that version.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from lodestar_router.emulator.server_engine import Progress, Step

_TTFT = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_PER_TOKEN = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
_REQUEST = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
_STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_REASONS = ("stop", "length", "abort", "error", "repetition")

_Sample = tuple[str, str, float]  # suffix of the name, further labels, value


class _Histogram:
    """Counts per bucket; the values seen, added up."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value; bounds are inclusive."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def samples(self) -> Iterator[_Sample]:
        """As Prometheus writes histograms."""
        totals = list(accumulate(self._counts))
        shown = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for bound, total in zip(shown, totals, strict=True):
            yield "_bucket", f',le="{bound}"', total
        yield "_count", "", totals[-1]
        yield "_sum", "", self._sum


class EngineMetrics:
    """What one engine's page says.

    Args:
        cache_config: labels of vllm:cache_config_info.
        started_at_s: since the epoch.
    """

    def __init__(
        self,
        model: str,
        cache_config: Mapping[str, object],
        *,
        max_model_len: int,
        started_at_s: float,
    ) -> None:
        self._labels = f'engine="0",model_name="{model}"'
        pairs = sorted({**cache_config, "engine": 0}.items())
        self._cache_labels = ",".join(f'{name}="{value}"' for name, value in pairs)
        self._started_at_s = started_at_s
        self._page: bytes | None = None
        self._gauges = {"num_requests_running": 0.0, "num_requests_waiting": 0.0}
        self._gauges["kv_cache_usage_perc"] = 0.0  # 0..1, whatever its name says
        self._counters = dict.fromkeys(
            (
                "prefix_cache_queries", "prefix_cache_hits", "num_preemptions", "prompt_tokens",
                "prompt_tokens_cached", "generation_tokens",
            ),
            0,
        )  # fmt: skip
        self._endings = dict.fromkeys(_REASONS, 0)
        tokens = _one_two_five(max_model_len)
        bounds: dict[str, Sequence[float]] = {
            "request_prompt_tokens": tokens,
            "request_generation_tokens": tokens,
            "iteration_tokens_total": _STEP_TOKENS,
            "time_to_first_token_seconds": _TTFT,
            "inter_token_latency_seconds": _PER_TOKEN,
            "request_time_per_output_token_seconds": _PER_TOKEN,
            "e2e_request_latency_seconds": _REQUEST,
            "request_queue_time_seconds": _REQUEST,
            "request_inference_time_seconds": _REQUEST,
            "request_prefill_time_seconds": _REQUEST,
            "request_decode_time_seconds": _REQUEST,
        }
        self._histograms = {name: _Histogram(of) for name, of in bounds.items()}

    def stepped(self, step: Step) -> None:
        """Add one step."""
        self._page = None
        result, counters, histograms = step.result, self._counters, self._histograms
        self._gauges["num_requests_running"] = result.num_running_reqs
        self._gauges["num_requests_waiting"] = result.num_waiting_reqs
        self._gauges["kv_cache_usage_perc"] = result.kv_cache_usage_ratio
        counters["prefix_cache_queries"] += result.prefix_queries_tokens
        counters["prefix_cache_hits"] += result.prefix_hits_tokens
        counters["num_preemptions"] += len(result.preempted)
        counters["generation_tokens"] += len(result.emitted)
        if result.duration_s > 0.0:
            histograms["iteration_tokens_total"].observe(result.prefill_tokens + result.decodes)
        end_s = result.ended_at_s
        for one in step.first:
            sequence = one.sequence
            counters["prompt_tokens"] += sequence.prompt_tokens
            counters["prompt_tokens_cached"] += sequence.cached_tokens
            histograms["time_to_first_token_seconds"].observe(end_s - sequence.arrived_at_s)
        # Tokens of a step mostly follow on the same step, so few values differ.
        before = Counter([one.last_token_at_s for one in step.emitted if one.made])
        for last_s, times in before.items():
            histograms["inter_token_latency_seconds"].observe(end_s - last_s, times)
        for one in step.finished:
            self._finished(one, end_s)

    def aborted(self, progress: Progress) -> None:
        """Count a request that its client ended."""
        self._page = None
        self._endings["abort"] += 1

    def _finished(self, progress: Progress, end_s: float) -> None:
        sequence, histograms = progress.sequence, self._histograms
        self._endings["stop" if progress.ended_early else "length"] += 1
        made = progress.made + 1
        admitted_s, first_s = sequence.admitted_at_s, sequence.first_token_at_s
        assert admitted_s is not None
        assert first_s is not None
        histograms["request_prompt_tokens"].observe(sequence.prompt_tokens)
        histograms["request_generation_tokens"].observe(made)
        histograms["e2e_request_latency_seconds"].observe(end_s - sequence.arrived_at_s)
        queued_s = max(0.0, admitted_s - sequence.arrived_at_s)
        histograms["request_queue_time_seconds"].observe(queued_s)
        histograms["request_inference_time_seconds"].observe(end_s - admitted_s)
        histograms["request_prefill_time_seconds"].observe(first_s - admitted_s)
        histograms["request_decode_time_seconds"].observe(end_s - first_s)
        if made > 1:
            histograms["request_time_per_output_token_seconds"].observe(
                (end_s - first_s) / (made - 1)
            )

    def page(self) -> bytes:
        """The page as it is now."""
        if self._page is None:
            self._page = "".join(self._lines()).encode()
        return self._page

    def _lines(self) -> Iterator[str]:
        yield from self._metric("process_start_time_seconds", "gauge", "", self._started_at_s)
        for name, value in self._gauges.items():
            yield from self._metric(f"vllm:{name}", "gauge", self._labels, value)
        for name, total in self._counters.items():
            yield from self._metric(f"vllm:{name}_total", "counter", self._labels, total)
        endings = ((f',finished_reason="{why}"', count) for why, count in self._endings.items())
        yield from _family(
            "vllm:request_success_total",
            "counter",
            self._labels,
            (("", labels, count) for labels, count in endings),
        )
        for name, histogram in self._histograms.items():
            yield from _family(f"vllm:{name}", "histogram", self._labels, histogram.samples())
        yield from self._metric("vllm:cache_config_info", "gauge", self._cache_labels, 1.0)

    def _metric(self, name: str, kind: str, labels: str, value: float) -> Iterator[str]:
        return _family(name, kind, labels, [("", "", value)])


def _family(name: str, kind: str, labels: str, samples: Iterable[_Sample]) -> Iterator[str]:
    yield f"# TYPE {name} {kind}\n"
    for suffix, further, value in samples:
        braced = f"{{{labels}{further}}}" if labels else ""
        yield f"{name}{suffix}{braced} {float(value)!r}\n"


def _one_two_five(limit: int) -> tuple[int, ...]:
    """1, 2, 5, 10, ... up to `limit`, as vLLM bounds token counts."""
    steps = (mantissa * 10**power for power in range(10) for mantissa in (1, 2, 5))
    return tuple(step for step in steps if step <= limit)
