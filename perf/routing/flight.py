"""One request on its way, and what is measured of it.

Times are virtual seconds. `ttft_s` and `e2e_s` are what a client sees that talks
to the router without delay: from arrival at the router, tokenizing included, to
the token's passing it.
"""

from dataclasses import dataclass
from math import nan

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.fleet import Ticket
from lodestar_router.core.prefix_index import Reservation
from lodestar_router.core.types import Decision, RoutedRequest
from lodestar_router.emulator.sequence import Sequence
from perf.routing.workloads.base import Ask


@dataclass(slots=True, eq=False)
class Flight:
    """An ask from its arrival to its end."""

    ask: Ask
    arrived_at_s: float
    prompt: Prompt | None = None  # None: the policy does not read prompts
    routed: RoutedRequest | None = None
    decision: Decision | None = None
    ticket: Ticket | None = None
    reservation: Reservation | None = None
    sequence: Sequence | None = None  # in its engine; None before and after
    engine: int = -1
    expected_cached_tokens: int = 0  # by the router, when it decided
    cached_tokens: int = 0  # found by the engine
    decided_first_s: float = nan  # later decisions: while it was held
    decision_ns: int = 0  # real time that the choice took
    first_token_at_s: float = nan
    ended_at_s: float = nan
    rejected: bool = False

    @property
    def request_id(self) -> str:
        """Unique in a run."""
        return f"r{self.ask.number}"

    @property
    def ttft_s(self) -> float:
        """Arrival to first token."""
        return self.first_token_at_s - self.arrived_at_s

    @property
    def e2e_s(self) -> float:
        """Arrival to last token."""
        return self.ended_at_s - self.arrived_at_s

    @property
    def tpot_s(self) -> float | None:
        """Mean gap between tokens; None for answers of one."""
        gaps = self.ask.output_tokens - 1
        return (self.ended_at_s - self.first_token_at_s) / gaps if gaps > 0 else None

    def disown(self) -> None:
        """The router that decided is gone; what its engine has of the request goes on."""
        self.routed = self.decision = self.ticket = self.reservation = None

    def close(self) -> None:
        """Let go of all but the numbers: a run has tens of thousands of flights."""
        self.disown()
        self.prompt = self.sequence = None
