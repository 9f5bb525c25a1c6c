"""The checked settings of disaggregated prefill; what each is for: disaggregated_settings.py."""

from dataclasses import dataclass
from typing import Final

from lodestar_router.config.batch_model import BatchConfig

BY_ITSELF, ORCHESTRATED = "disaggregated_prefill", "disaggregated_prefill_orchestrated"
DISAGGREGATED: Final = (BY_ITSELF, ORCHESTRATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisaggregatedConfig(BatchConfig):
    """Which engines take which leg, and who chooses among them."""

    routing_logic: str
    prefill_model_labels: tuple[str, ...]
    decode_model_labels: tuple[str, ...]
    pd_policy: str
    pd_fallback: bool

    @property
    def disaggregated(self) -> bool:
        """Whether requests have a prefill and a decode leg."""
        return self.routing_logic in DISAGGREGATED

    @property
    def policy(self) -> str:
        """The policy that chooses engines, or the engine that computes the prompt."""
        return self.pd_policy if self.disaggregated else self.routing_logic
