"""The router's state as plain values: for GET /engines, /health and the gauges of /metrics."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from lodestar_router.config import Config
from lodestar_router.config.live import shown_live
from lodestar_router.core.fleet import EngineState, Fleet
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import CircuitState, EngineId, PrefixViewKind
from lodestar_router.engines.watch import SLEEP, EngineWatch
from lodestar_router.proxy.metrics import GaugeRow

_CIRCUIT_STATES = (
    CircuitState.CLOSED,
    CircuitState.RESTING,
    CircuitState.HALF_OPEN,
    CircuitState.OPEN,
)


def describe_engines(
    fleet: Fleet, index: PrefixIndex, watches: Mapping[EngineId, EngineWatch], now_s: float
) -> list[dict[str, Any]]:
    """All of them, for GET /engines."""
    return [_describe_engine(state, fleet, index, watches, now_s) for state in fleet]


def _describe_engine(
    state: EngineState,
    fleet: Fleet,
    index: PrefixIndex,
    watches: Mapping[EngineId, EngineWatch],
    now_s: float,
) -> dict[str, Any]:
    """One engine, its views and how old each of them is."""
    engine_id = state.spec.engine_id
    snapshot = fleet.snapshot(engine_id, now_s)
    load = snapshot.load
    return {
        "engine_id": engine_id,
        "name": state.spec.name,
        "url": state.spec.url,
        "gpu": state.spec.gpu,
        "up": state.up,
        "reason": state.reason,
        "holds": dict(state.holds),
        "sleeping": SLEEP in state.holds,
        "since_s": None if state.changed_at_s is None else now_s - state.changed_at_s,
        "circuit": state.circuit.describe(now_s),
        "version": state.version,
        "serving_models": [card["id"] for card in state.cards],
        "created": state.added_at_unix_s,
        "labels": dict(state.spec.labels),
        "load": None
        if load is None
        else {
            "source": load.source,
            "age_s": now_s - load.observed_at_s,
            "num_running_reqs": load.num_running_reqs,
            "num_waiting_reqs": load.num_waiting_reqs,
            "kv_cache_usage_ratio": load.kv_cache_usage_ratio,
        },
        "inflight": {
            "requests": state.inflight_requests,
            "prefill_requests": state.inflight_prefill_requests,
            "prefill_tokens": state.inflight_prefill_tokens,
            "decode_tokens": state.inflight_decode_tokens,
        },
        "dispatched_total": state.dispatched_total,
        "log_residual": snapshot.log_residual,
        "kv_blocks": state.kv_blocks,
        "block_size_tokens": state.block_size_tokens,
        "prefix_view": snapshot.prefix_view.value,
        "views": [
            {**asdict(row), "kind": row.kind.value}
            for row in index.stats()
            if row.engine_id == engine_id
        ],
        "feeds": watches[engine_id].describe(),
    }


def describe_health(
    config: Config, config_error: str, *, engines_known: bool
) -> tuple[int, dict[str, Any]]:
    """(status, body) of GET /health, in the words of production-stack's router.

    Args:
        config_error: why the newest settings are not in force, "" if they are.
        engines_known: False once nobody follows which engines there are.
    """
    if not engines_known:
        return 503, {"status": "Service discovery module is down."}
    health: dict[str, Any] = {"status": "healthy"}
    if config.dynamic_config is not None:
        health["dynamic_config"] = shown_live(config)
    if config_error:
        health["dynamic_config_error"] = config_error
    return 200, health


def gauge_rows(
    fleet: Fleet,
    index: PrefixIndex,
    now_s: float,
) -> Iterator[GaugeRow]:
    """What is read of engines when /metrics is scraped rather than counted."""
    for state in fleet:
        yield from _engine_rows(state, fleet, now_s)
    for view in index.stats():
        labels = {"engine": str(view.engine_id), "view": view.view}
        yield "lodestar:prefix_view_blocks", "Blocks believed cached.", labels, view.blocks
        yield (
            "lodestar:prefix_view_events",
            "KV events applied since the router started.",
            labels,
            view.events,
        )
        yield (
            "lodestar:prefix_view_unknown_events",
            "KV events of a kind this router does not know.",
            labels,
            view.unknown_events,
        )


def _engine_rows(state: EngineState, fleet: Fleet, now_s: float) -> Iterator[GaugeRow]:
    labels = {"engine": str(state.spec.engine_id)}
    snapshot = fleet.snapshot(state.spec.engine_id, now_s)
    age_s = snapshot.load_age_s(now_s)
    takes_requests = float(state.up and not state.holds)
    yield "lodestar:engine_up", "1 if the engine can take requests.", labels, takes_requests
    yield (
        "lodestar:circuit_state",
        "0 closed, 1 resting (Retry-After), 2 half-open, 3 open.",
        labels,
        _CIRCUIT_STATES.index(state.circuit.state),
    )
    yield (
        "lodestar:circuit_openings",
        "Times the engine's circuit opened.",
        labels,
        state.circuit.opened_total,
    )
    yield (
        "lodestar:inflight_requests",
        "Requests sent and not yet ended.",
        labels,
        state.inflight_requests,
    )
    yield (
        "lodestar:inflight_prefill_tokens",
        "Uncached prompt tokens sent whose first token is not back.",
        labels,
        state.inflight_prefill_tokens,
    )
    yield (
        "lodestar:prefix_view_exact",
        "1 if every KV event of the engine has been applied.",
        labels,
        float(snapshot.prefix_view is PrefixViewKind.EXACT),
    )
    yield (
        "lodestar:engine_log_residual",
        "Recent mean of ln(observed / predicted TTFT).",
        labels,
        snapshot.log_residual,
    )
    if age_s is not None:
        yield "lodestar:load_age_seconds", "Age of the engine's last load report.", labels, age_s
