"""The values that travel from a request to its training label.

    EngineSpec ─ registered in ─► Fleet ─► EngineSnapshot ┐
    RoutedRequest, prefix match ──────────────────────────┴► Candidate ─► Decision ─► Outcome

All are immutable. A name ends in its unit; a name without one is a count.
Times are monotonic seconds. No I/O, clock or logging here.

Those made for every request and candidate are msgspec Structs: one is built in a
tenth of the microsecond and more that a frozen dataclass takes. `replace` makes a
changed copy; that of `dataclasses` does not know them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from lodestar_router.core.goal import Goal

__all__ = [
    "Arm",
    "Candidate",
    "CircuitState",
    "Decision",
    "Ending",
    "EngineId",
    "EngineLoad",
    "EngineSnapshot",
    "EngineSpec",
    "FloatMatrix",
    "FloatVector",
    "Leg",
    "Outcome",
    "PrefixViewKind",
    "RoutedRequest",
    "UNKNOWN_GPU",
    "replace",
]

EngineId = NewType("EngineId", str)
FloatMatrix = npt.NDArray[np.float32]
FloatVector = npt.NDArray[np.float32]

UNKNOWN_GPU = "unknown"


class PrefixViewKind(StrEnum):
    """How much the router knows about the blocks an engine's KV cache holds."""

    EXACT = "exact"  # every event since the cache was empty has been applied
    PARTIAL = "partial"  # fed by events, but some were missed: may over- or under-state
    APPROXIMATE = "approximate"  # no events: what this router sent there, LRU-bounded
    NONE = "none"  # nothing known (prefix caching off, or just registered)


class CircuitState(StrEnum):
    """Whether an engine's requests end well; see core.circuit."""

    CLOSED = "closed"  # they do: it is sent requests
    RESTING = "resting"  # it asked for a pause (Retry-After)
    OPEN = "open"  # they fail: it is sent none
    HALF_OPEN = "half_open"  # one is tried


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """One engine as the operator or discovery names it."""

    engine_id: EngineId
    url: str  # scheme://host:port, no trailing slash
    gpu: str = UNKNOWN_GPU  # GPU kind, e.g. "A30": groups engines of equal speed
    name: str = ""  # what runs it: a pod's or service's name; "" if nothing does
    model: str | None = None  # expected served model; None: ask the engine
    models: tuple[str, ...] = ()  # the only ones to send there; (): all that it says it serves
    kv_events: tuple[str, ...] = ()  # ZMQ PUB endpoints, one per data-parallel rank
    kv_replay: tuple[str, ...] = ()  # ZMQ ROUTER endpoints, same order
    scheduler_stats: tuple[str, ...] = ()  # ZMQ PUB endpoints of the stats plugin, per API server
    api_key_env: str | None = None  # environment variable that holds the engine's key
    labels: Mapping[str, str] = field(default_factory=dict)


class EngineLoad(Struct, frozen=True, kw_only=True):
    """What an engine says of its own scheduler, from /metrics or the stats plugin."""

    observed_at_s: float  # when the router received it
    source: str  # "metrics" or "scheduler_stats"
    num_running_reqs: int
    num_waiting_reqs: int
    kv_cache_usage_ratio: float  # 0..1 (vllm:kv_cache_usage_perc is too)


class EngineSnapshot(Struct, frozen=True, kw_only=True):
    """One engine as the router believed it to be at one instant.

    Never updated in place: the decision, its log line and its training row
    share one object.
    """

    engine_id: EngineId
    gpu: str
    load: EngineLoad | None  # None: the engine has not reported yet
    prefix_view: PrefixViewKind
    inflight_requests: int  # sent by this router, not yet ended
    inflight_prefill_requests: int  # of those, first token not yet back
    inflight_prefill_tokens: int  # their uncached prompt tokens
    inflight_computed_tokens: int = 0  # of these, computed by now if all goes as foreseen
    inflight_decode_tokens: int  # prompt tokens of those past their first token
    kv_blocks: int | None = None  # capacity of the KV cache; None: unknown
    block_size_tokens: int | None = None
    log_residual: float = 0.0  # recent mean of ln(observed / predicted TTFT) on this engine
    circuit: CircuitState = CircuitState.CLOSED

    def load_age_s(self, now_s: float) -> float | None:
        """Seconds since the engine last reported; None if it never did."""
        return None if self.load is None else now_s - self.load.observed_at_s


class Candidate(Struct, frozen=True, kw_only=True):
    """An engine that passed the filters, with what is true for one request."""

    engine: EngineSnapshot
    cached_prefix_tokens: int  # prompt tokens expected in its KV cache, at most prompt_tokens - 1


class Leg(StrEnum):
    """The half of a request that a decision is about, where prefill is disaggregated."""

    PREFILL = "prefill"  # the prompt is computed, and handed over
    DECODE = "decode"  # the answer is written; the prompt comes computed


class RoutedRequest(Struct, frozen=True, kw_only=True):
    """What routing knows of a request; never its text."""

    request_id: str
    model: str
    prompt_tokens: int  # 1 at least; estimated when `tokens_known` is false
    tokens_known: bool
    max_output_tokens: int | None
    stream: bool
    now_s: float  # the instant of the decision
    session_id: str | None = None
    goal: Goal | None = None  # None: the policy's own
    num_answers: int = 1  # asked for at once, OpenAI's `n`
    pinned: EngineId | None = None  # the only engine that will do; None: any
    leg: Leg | None = None  # None: one engine does it all


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeForecast:
    """What one request's answer would take on each candidate; lists [candidates]."""

    output_tokens: float  # expected, the same everywhere
    tpot_s: Sequence[float]
    tpot_spread: Sequence[float]  # standard deviation of ln(observed / tpot_s)
    others_s: Sequence[float]  # seconds by which it lengthens other answers, in sum


class Arm(StrEnum):
    """Which policy steers a request while the learned one is on trial."""

    LEARNED = "learned"
    FALLBACK = "fallback"


class Decision(Struct, frozen=True, kw_only=True, eq=False):
    """Which engine gets a request, and everything needed to explain or learn from it.

    `features` holds exactly the vectors that were scored, one row per candidate
    in the order of `candidates`: they are the training inputs. Where another
    policy steers, they and the predictions are still the learned policy's.
    """

    policy: str
    candidates: Sequence[Candidate]
    chosen: int  # index into candidates
    costs: Sequence[float]  # the policy's own cost per candidate, lower is better
    reason: str  # which consideration decided: affinity, load, tie, ...
    propensity: float = 1.0  # probability with which the policy would choose this one
    features: FloatMatrix | None = None  # [candidates, features], unscaled
    base_s: FloatVector | None = None  # [candidates] TTFT by the physical base alone
    predicted_ttft_s: FloatVector | None = None  # [candidates]
    model_version: int | None = None  # None: no learned model took part
    schema_version: int | None = None
    residuals: FloatVector | None = None  # [candidates] ln, what the net says of each
    trusted: bool = False  # whether the predictions include the residuals
    prices_s: Sequence[float] | None = None  # [candidates] seconds of delay to others
    work_s: Sequence[float] | None = None  # [candidates] seconds of prefill it adds there
    goal: Goal | None = None  # what the learned policy's costs stand for
    forecast: DecodeForecast | None = None  # None: the goal does not ask for it
    arm: Arm | None = None  # None: no trial is under way
    other: "Decision | None" = None  # of the policy that did not steer
    excluded: Mapping[EngineId, str] | None = None  # engines that were no candidates, and why

    @property
    def engine_id(self) -> EngineId:
        """The engine that was chosen."""
        return self.candidates[self.chosen].engine.engine_id


class Ending(StrEnum):
    """How a routed request ended."""

    COMPLETED = "completed"
    REJECTED = "rejected"  # the engine answered with an error status
    FAILED = "failed"  # the engine broke before or during its answer
    CANCELLED = "cancelled"  # the client went away
    MOVED = "moved"  # it was decided anew while it waited at the router for its engine


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of a decision; the label of its training row.

    `ttft_s` is None when no first token was seen; `waited_s` then is a lower
    bound of it. At the end of an answer `waited_s` is its end-to-end time.
    """

    request_id: str
    engine_id: EngineId
    ending: Ending | None  # None: the first token is here, the end is not
    ttft_s: float | None
    waited_s: float
    output_tokens: int | None = None  # of a whole answer, where they could be counted
    held_s: float = 0.0  # of all that, how long the request waited at the router

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first, of a whole answer whose first token was seen."""
        if self.ending is not Ending.COMPLETED or self.ttft_s is None:
            return None
        if self.output_tokens is None or self.output_tokens < 2:
            return None
        return (self.waited_s - self.ttft_s) / (self.output_tokens - 1)
