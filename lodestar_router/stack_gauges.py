"""What production-stack's router says of each engine: its gauges, its lines of statistics.

In       the fleet, and what each engine did lately.
Out      gauges with label `server`, an engine's URL; a line per engine for --log-stats.
Source   routers/metrics_router.py and stats/log_stats.py of production-stack at a6c01db.

A gauge that nothing is known for is absent, where the original says -1, or 0 for ever.
vllm:num_requests_waiting is never among them: autoscalers add up the engines' own.
"""

from collections.abc import Iterator

from lodestar_router.core.fleet import EngineState, Fleet
from lodestar_router.proxy.metrics import GaugeRow
from lodestar_router.proxy.recent import Figures
from lodestar_router.proxy.stack_metrics import StackMetrics

_NOTHING = Figures(per_s=0.0, latency_s=None, decode_s=None, gap_s=None)

_Row = tuple[str, str, float | None]


def stack_rows(fleet: Fleet, metrics: StackMetrics, now_s: float) -> Iterator[GaugeRow]:
    """Every gauge of every engine."""
    for state in fleet:
        labels = {"server": state.spec.url}
        for name, help_text, value in _engine_rows(state, _figures(state, metrics, now_s)):
            if value is not None:
                yield f"vllm:{name}", help_text, labels, value


def _figures(state: EngineState, metrics: StackMetrics, now_s: float) -> Figures:
    recent = metrics.recent(state.spec.engine_id)
    return _NOTHING if recent is None else recent.figures(now_s)


def _engine_rows(state: EngineState, lately: Figures) -> Iterator[_Row]:
    running, prefills = state.inflight_requests, state.inflight_prefill_requests
    yield "healthy_pods_total", "1 if the engine can take requests.", float(_healthy(state))
    yield "num_requests_running", "Requests sent and not yet ended.", running
    yield "num_prefill_requests", "Of these, without a first token.", prefills
    yield "num_decoding_requests", "Of these, past it.", running - prefills
    yield "num_requests_swapped", "Always 0: vLLM does not swap.", 0
    yield "current_qps", "Requests sent per second, lately.", lately.per_s
    yield "avg_latency", "Mean seconds to the last byte, lately.", lately.latency_s
    yield "avg_decoding_length", "Mean seconds from first token to last.", lately.decode_s
    yield "avg_itl", "Mean seconds between tokens, lately.", lately.gap_s
    if state.cache_tokens is not None:
        queries, hits = state.cache_tokens
        yield "gpu_prefix_cache_queries_total", "Prompt tokens looked up, it says.", queries
        yield "gpu_prefix_cache_hits_total", "Prompt tokens it had cached, it says.", hits
        rate = hits / queries if queries else 0.0
        yield "gpu_prefix_cache_hit_rate", "Share of them that it had, 0..1.", rate


def _healthy(state: EngineState) -> bool:
    return state.up and not state.holds and state.circuit.clear


def stats_lines(fleet: Fleet, metrics: StackMetrics, now_s: float) -> Iterator[str]:
    """One line per engine."""
    for state in fleet:
        lately, load = _figures(state, metrics, now_s), state.load
        known = [f"{state.spec.url}: {state.trouble or 'up'}"]
        if load is not None:
            known.append(
                f"engine running {load.num_running_reqs}, waiting {load.num_waiting_reqs}, "
                f"KV cache {load.kv_cache_usage_ratio:.0%}"
            )
        if state.cache_tokens is not None and state.cache_tokens[0]:
            known.append(f"cache hits {state.cache_tokens[1] / state.cache_tokens[0]:.0%}")
        known.append(
            f"sent {lately.per_s:.2f}/s, in flight {state.inflight_requests} "
            f"({state.inflight_prefill_requests} in prefill), "
            f"{state.dispatched_total} since it joined"
        )
        if lately.latency_s is not None:
            known.append(f"latency {lately.latency_s:.3f} s")
        if lately.gap_s is not None:
            known.append(f"between tokens {lately.gap_s:.4f} s")
        yield "; ".join([*known, f"models {', '.join(sorted(state.models)) or 'none'}"])
