"""Builders of core values for tests: every field has a default, tests name what matters.

The default engine is idle, of unknown GPU kind, and has not reported yet.
"""

from typing import TypedDict, Unpack

from lodestar_router.core.goal import Goal
from lodestar_router.core.types import (
    UNKNOWN_GPU,
    Candidate,
    EngineId,
    EngineLoad,
    EngineSnapshot,
    Leg,
    PrefixViewKind,
    RoutedRequest,
    replace,
)


class SnapshotFields(TypedDict, total=False):
    """What a test may say of an engine; names as in EngineSnapshot."""

    gpu: str
    load: EngineLoad | None
    prefix_view: PrefixViewKind
    inflight_requests: int
    inflight_prefill_requests: int
    inflight_prefill_tokens: int
    inflight_computed_tokens: int
    inflight_decode_tokens: int
    kv_blocks: int | None
    block_size_tokens: int | None
    log_residual: float


class RequestFields(TypedDict, total=False):
    """What a test may say of a request; names as in RoutedRequest."""

    request_id: str
    model: str
    prompt_tokens: int
    tokens_known: bool
    max_output_tokens: int | None
    stream: bool
    now_s: float
    session_id: str | None
    goal: Goal | None
    leg: Leg | None


def load(
    *,
    observed_at_s: float = 0.0,
    source: str = "metrics",
    num_running_reqs: int = 0,
    num_waiting_reqs: int = 0,
    kv_cache_usage_ratio: float = 0.0,
) -> EngineLoad:
    """An engine's report; idle unless told otherwise."""
    return EngineLoad(
        observed_at_s=observed_at_s,
        source=source,
        num_running_reqs=num_running_reqs,
        num_waiting_reqs=num_waiting_reqs,
        kv_cache_usage_ratio=kv_cache_usage_ratio,
    )


def snapshot(engine_id: str = "a", **fields: Unpack[SnapshotFields]) -> EngineSnapshot:
    """An engine as the router sees it."""
    idle = EngineSnapshot(
        engine_id=EngineId(engine_id),
        gpu=UNKNOWN_GPU,
        load=None,
        prefix_view=PrefixViewKind.EXACT,
        inflight_requests=0,
        inflight_prefill_requests=0,
        inflight_prefill_tokens=0,
        inflight_computed_tokens=0,
        inflight_decode_tokens=0,
    )
    return replace(idle, **fields)


def candidate(
    engine_id: str = "a", *, cached_prefix_tokens: int = 0, **fields: Unpack[SnapshotFields]
) -> Candidate:
    """An engine that can take the request, with its cached share of the prompt."""
    return Candidate(
        engine=snapshot(engine_id, **fields), cached_prefix_tokens=cached_prefix_tokens
    )


def request(**fields: Unpack[RequestFields]) -> RoutedRequest:
    """A streaming request of 1,000 known prompt tokens."""
    plain = RoutedRequest(
        request_id="r1",
        model="m",
        prompt_tokens=1000,
        tokens_known=True,
        max_output_tokens=None,
        stream=True,
        now_s=0.0,
    )
    return replace(plain, **fields)
