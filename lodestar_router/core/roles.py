"""Which engines compute prompts and which write answers, where prefill is disaggregated.

    an engine's label `model`  in --prefill-model-labels  ─► prefill
                               in --decode-model-labels   ─► decode
                               in both                    ─► either
                               in neither                 ─► no part of it

In       labels of engines, as discovery tells them: a pod's, a service's, a static one.
Out      whether an engine may take a leg; who may not, and why.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lodestar_router.core.fleet import EngineState
from lodestar_router.core.types import EngineId, Leg

ROLE_LABEL = "model"  # production-stack's charts set it on every engine's pod


@dataclass(frozen=True, slots=True)
class Roles:
    """The labels of either role."""

    prefill: tuple[str, ...]
    decode: tuple[str, ...]

    def takes(self, state: EngineState, leg: Leg) -> bool:
        """Whether the engine's label gives it this leg."""
        wanted = self.prefill if leg is Leg.PREFILL else self.decode
        return state.spec.labels.get(ROLE_LABEL) in wanted

    def barred(self, states: Iterable[EngineState], leg: Leg) -> dict[EngineId, str]:
        """Engines that do not take the leg, each with the reason."""
        return {
            state.spec.engine_id: self._role_of(state)
            for state in states
            if not self.takes(state, leg)
        }

    def _role_of(self, state: EngineState) -> str:
        for leg in Leg:
            if self.takes(state, leg):
                return f"takes the {leg.value} leg only"
        return f"label {ROLE_LABEL}={state.spec.labels.get(ROLE_LABEL, '')!r} has no role"
