"""What a routing policy is: one method, values in, a Decision out.

A policy holds no socket, clock or lock; time comes with the request and
randomness through the constructor, so the same object runs in the live router
and in virtual time. Calls are serialised by the event loop.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import ClassVar, Protocol

from lodestar_router.core.types import Candidate, Decision, RoutedRequest


class Policy(Protocol):
    """Chooses one engine among candidates that all can serve the request."""

    name: ClassVar[str]

    @property
    def reads_prompt(self) -> bool:
        """False: choices ignore cached prefixes, so nothing is tokenized."""
        ...

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        """Choose; `candidates` is not empty and is left untouched.

        Missing data (an engine that never reported, an unknown capacity) is
        tolerated. The order of candidates matters for exact ties only.
        """
        ...


PolicyFactory = Callable[[Random], Policy]


def index_of_lowest(costs: Sequence[float], rng: Random) -> tuple[int, int]:
    """(index, how many tied) of the lowest cost; ties are broken by `rng`."""
    lowest = min(costs)
    tied = [index for index, cost in enumerate(costs) if cost == lowest]
    return (tied[0] if len(tied) == 1 else rng.choice(tied)), len(tied)
