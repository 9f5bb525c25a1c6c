"""The checked settings of the HTTP edge; what each one is for stands in edge_settings.py."""

from dataclasses import dataclass

from lodestar_router.config.discovery_model import DiscoveryConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeConfig(DiscoveryConfig):
    """What clients meet."""

    drain_timeout_s: float
    drain_delay_s: float  # part of it
