"""What a workload is: an endless stream of asks, with gaps of mean 1 between requests.

    time of an ask = sum of the gaps before it / requests per second

so that one stream serves any rate, and a rate that changes.

In       a random generator; the vocabulary size, for answers that become prompts.
Out      (gap, Ask), without end.
Cost     about 30 us per ask.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from lodestar_router.core.block_keys import TokenArray
from lodestar_router.core.blocks import Prompt

# Above any real vocabulary, so that random content never repeats by chance.
_TOKEN_SPACE = 2**31


@dataclass(slots=True, eq=False)
class Ask:
    """One request as a client makes it, and the one it makes after the answer."""

    token_ids: TokenArray
    output_tokens: int
    answer_seed: int
    session: int | None = None
    think_s: float = 0.0  # from the answer before it to this one
    then: "Ask | None" = None
    number: int = 0  # unique in a plan
    at_s: float = 0.0  # when it reaches the router; of a later turn: unknown before it happens
    prompt: Prompt = field(init=False)  # one object for all runs: block keys are computed once

    def __post_init__(self) -> None:
        self.prompt = Prompt([self.token_ids])

    def turns(self) -> "Iterator[Ask]":
        """This ask and all that follow from it."""
        ask: Ask | None = self
        while ask is not None:
            yield ask
            ask = ask.then


class Workload(Protocol):
    """A frozen dataclass of parameters; its repr identifies it."""

    def asks(self, rng: np.random.Generator, vocab_size: int) -> Iterator[tuple[float, Ask]]:
        """(gap in mean request intervals, ask); an ask with later turns counts as many."""
        ...


def random_tokens(rng: np.random.Generator, count: int) -> TokenArray:
    """uint32[count] of content that nothing else has."""
    return rng.integers(0, _TOKEN_SPACE, count, dtype=np.uint32)


def random_seed(rng: np.random.Generator) -> int:
    """The seed of one answer."""
    return int(rng.integers(2**63))


def spread_around(rng: np.random.Generator, mean: float, deviation: float, low: int = 1) -> int:
    """A normal draw as a whole number, not below `low`."""
    return max(low, round(float(rng.normal(mean, deviation))))
