"""How often an engine is looked at, and how long its silence is borne."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """Times in seconds."""

    metrics_interval_s: float
    metrics_timeout_s: float = 2.0
    probe_timeout_s: float = 10.0
    models_every_s: float = 10.0  # adapters come and go without a restart
    # vLLM's API server answers /health 503 when its engine core has died.
    health_every_s: float = 2.0
    # A busy API server may answer /metrics late, but not that late. Time alone is no
    # proof: when this whole machine stood still, one poll times out late.
    down_after_s: float = 15.0
    down_after_timeouts: int = 5
