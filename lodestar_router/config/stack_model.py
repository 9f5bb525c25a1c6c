"""The checked settings that production-stack's router has too; see stack_settings.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalProvider:
    """One provider, and what it is asked for; see external_providers.py."""

    name: str
    url: str
    models: Mapping[str, str]  # name or alias -> the provider's own name
    timeout_s: float
    max_retries: int
    api_key: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackConfig:
    """What is neither discovery nor the edge."""

    external_providers_config: Path | None
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
    external_providers: tuple[ExternalProvider, ...] = field(default=(), repr=False)
