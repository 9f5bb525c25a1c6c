"""The checked settings; what each one is for stands in settings.py."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lodestar_router.config.disaggregated_model import DisaggregatedConfig
from lodestar_router.core.goal import Goal, Objective
from lodestar_router.core.types import EngineId, EngineSpec

ANY_MODEL = "*"
BASE_POLICY = "base"  # the learned policy without its net
DEFAULT_CANARY = 0.05
_NOT_SHOWN = (
    "api_keys", "api_key", "probe_key", "client_keys", "external_providers", "warnings",
)  # fmt: skip
EMULATED_GPU, EMULATED_MODEL = "A30", "llama-3-8b"  # where the operator names none


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedGroup:
    """Equal engines that the router starts by itself."""

    count: int
    gpu: str = EMULATED_GPU
    model: str = EMULATED_MODEL
    role: str | None = None  # prefill or decode, where prefill is disaggregated


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(DisaggregatedConfig):
    """Everything the router is started with.

    A timeout of 0 is none. Keys are secrets: they are in no representation.
    """

    engines: tuple[EngineSpec, ...]
    emulated: tuple[EmulatedGroup, ...]  # engines to start beside the router
    emulated_speed: float  # seconds of theirs per second
    allow_mixed_models: bool
    api_key_env: str | None
    host: str
    port: int  # 0: a free one
    max_body_bytes: int
    retries: int
    retry_statuses: frozenset[int]
    retry_budget_ratio: float
    resend_unanswered: bool
    circuit_failures: int  # 0: circuits never open
    circuit_open_s: float
    hang_timeout_s: float
    connect_timeout_s: float
    first_byte_timeout_s: float
    idle_timeout_s: float
    total_timeout_s: float
    max_request_timeout_s: float
    objective: str
    ttft_slo_s: float
    tpot_slo_s: float
    policy_mode: str  # active, shadow or canary
    policy_canary: float | None  # share, 0..1; None: not said
    policy_fallback: str  # BASE, or the name of a policy
    explore_share: float  # 0..1
    explore_extra_s: float
    hold_max_s: float  # 0: requests are sent at once
    tokenizers: Mapping[str, str]  # model to directory or hub id; ANY_MODEL for all others
    seed: int | None
    kv_events: bool
    metrics_interval_s: float
    trainer: bool
    state_dir: Path | None
    api_keys: Mapping[EngineId, str] = field(default_factory=dict, repr=False)
    api_key: str | None = field(default=None, repr=False)  # of engines that are found
    probe_key: str | None = field(default=None, repr=False)  # for the router's own calls only
    warnings: tuple[str, ...] = ()  # for the log at start

    def tokenizer_of(self, model: str) -> str | None:
        """The tokenizer configured for a model, if there is one."""
        return self.tokenizers.get(model, self.tokenizers.get(ANY_MODEL))

    @property
    def goal(self) -> Goal:
        """What the learned policy is to make small unless a request says otherwise."""
        return Goal(
            objective=Objective(self.objective),
            ttft_slo_s=self.ttft_slo_s,
            tpot_slo_s=self.tpot_slo_s,
        )

    @property
    def learned_share(self) -> float:
        """The share of requests that the learned policy steers; a share that is given counts."""
        if self.policy_canary is not None:
            return self.policy_canary
        return {"active": 1.0, "shadow": 0.0, "canary": DEFAULT_CANARY}[self.policy_mode]

    def effective(self) -> dict[str, Any]:
        """The settings in force as plain JSON values, without secrets."""
        settings = asdict(self)
        for name in _NOT_SHOWN:
            del settings[name]
        plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
        return plain
