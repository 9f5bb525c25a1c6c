"""What a benchmark-only policy may learn of the simulation it runs in.

A policy class that defines `attach(simulation)` is attached once, before its
first choice. The live router offers none of this, which is why such a policy
is for the benchmark only.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lodestar_router.core.block_keys import TokenArray
from lodestar_router.core.blocks import Prompt
from lodestar_router.core.types import Decision, EngineId, Outcome, RoutedRequest
from lodestar_router.emulator.engine_model import EngineModel
from lodestar_router.emulator.sequence import EmulatedRequest

OnLabel = Callable[[RoutedRequest, Decision, Outcome], None]


class Simulation(Protocol):
    """The part of perf.routing.simulation.Simulation that policies use."""

    @property
    def now_s(self) -> float:
        """Virtual time."""
        ...

    @property
    def transit_s(self) -> float:
        """From a decision to the engine's queue."""
        ...

    def engine_model(self, engine_id: EngineId) -> EngineModel:
        """The engine itself, as it will be at the end of the step under way."""
        ...

    def step_ends_s(self, engine_id: EngineId) -> float | None:
        """When the step under way ends; None if the engine is idle."""
        ...

    def on_their_way(self, engine_id: EngineId) -> Sequence[EmulatedRequest]:
        """Requests sent to the engine that have not reached its queue."""
        ...

    def prompt_token_ids(self, request_id: str) -> TokenArray:
        """The prompt of a request that has not ended."""
        ...

    def prompt(self, request_id: str) -> Prompt:
        """The same, with the names of its blocks that engines use."""
        ...

    def on_label(self, callback: OnLabel) -> None:
        """Call back at every first token (ending None) and at every end."""
        ...

    def call_at(self, due_s: float, act: Callable[..., None], *args: Any) -> None:
        """Call back at a virtual time, off the path of decisions."""
        ...
