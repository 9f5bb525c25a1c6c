"""The checked settings of the HTTP edge; what each one is for stands in edge_settings.py."""

from dataclasses import dataclass, field
from pathlib import Path

from lodestar_router.config.client_keys import ClientKey
from lodestar_router.config.discovery_model import DiscoveryConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeConfig(DiscoveryConfig):
    """What clients meet."""

    client_keys_file: Path | None
    client_keys_env: str | None
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    engine_ca: Path | None
    engine_cert: Path | None
    engine_key: Path | None
    max_header_bytes: int
    max_headers: int
    max_url_bytes: int
    max_json_depth: int
    max_concurrent: int  # per model; 0: no limit
    queue_depth: int
    queue_timeout_s: float
    max_loop_lag_s: float
    drain_timeout_s: float
    drain_delay_s: float  # part of it
    client_keys: tuple[ClientKey, ...] = field(default=(), repr=False)  # none: all may ask
