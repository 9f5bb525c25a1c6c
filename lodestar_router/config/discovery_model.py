"""The checked settings of discovery; what each one is for stands in discovery_settings.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lodestar_router.config.stack_model import StackConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryConfig(StackConfig):
    """Where engines come from, and the file that may change it."""

    service_discovery: str  # static, k8s or external-only
    k8s_service_discovery_type: str  # pod-ip or service-name
    k8s_namespace: str
    k8s_label_selector: str
    k8s_port: int
    k8s_watcher_timeout_s: float  # 0: not said
    k8s_gpu_node_label: str  # "": nodes are not asked
    probe_timeout_s: float
    static_backends: tuple[str, ...]
    static_models: tuple[str, ...]
    static_aliases: Mapping[str, str]  # alias -> model
    static_model_labels: tuple[str, ...]
    static_model_types: tuple[str, ...]
    static_backend_health_checks: bool
    static_backend_health_check_interval_s: float
    static_backend_health_check_timeout_s: float
    dynamic_config_yaml: Path | None
    dynamic_config_json: Path | None

    @property
    def dynamic_config(self) -> Path | None:
        """The file that is watched, if there is one."""
        return self.dynamic_config_yaml or self.dynamic_config_json
