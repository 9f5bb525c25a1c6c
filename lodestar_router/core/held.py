"""A request that waits at the router, and its rank among those that wait with it.

    rank = (waited + PATIENCE_S) / (work + WORK_FLOOR_S)

Of those that wait the shortest goes first, unless another has waited for long: that lowers
the mean of all, at the cost of the longest, which patience bounds.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

PATIENCE_S = 1.0  # as long again as a prompt of the usual 2,000 tokens takes to compute
WORK_FLOOR_S = 0.005  # what a request costs that has all of its prompt cached


class Held(Struct, eq=False):
    """A request that waits."""

    number: int
    arrived_at_s: float
    work_s: float  # of prefill that it adds on its engine
    uncached_tokens: int  # the same, 1 at least, as the fleet counts it
    client: str | None  # None: nobody's order is to be kept
    keys: Sequence[Any] = ()  # of the prompt's blocks, each chained to those before it
    cached_blocks: int = 0  # of them, expected in the engine's cache
    after: frozenset[int] = frozenset()  # who must go first; set by the queue

    def rank(self, now_s: float) -> float:
        """Who goes first; see the module."""
        return rank(now_s - self.arrived_at_s, self.work_s)

    def counts_on(self, other: "Held") -> bool:
        """Whether part of what it expects to be cached is yet to be computed by `other`."""
        last = self.cached_blocks - 1
        return (
            other.cached_blocks <= last < min(len(other.keys), len(self.keys))
            and other.keys[last] == self.keys[last]
        )


def rank(waited_s: float, work_s: float) -> float:
    """Higher goes first."""
    return (waited_s + PATIENCE_S) / (work_s + WORK_FLOOR_S)
