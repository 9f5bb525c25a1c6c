"""The checked settings that production-stack's router has too; see stack_settings.py."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """What is neither discovery nor the edge."""

    root_path: str  # "" or /PREFIX
    log_level: str
    log_format: str  # text or json
    log_stats: bool
    log_stats_interval_s: float
    request_stats_window_s: float
    session_key: str | None
    kv_aware_threshold_tokens: int
    prefix_min_match_chars: int
    reroute_attempts: int | None  # None: --retries says it
