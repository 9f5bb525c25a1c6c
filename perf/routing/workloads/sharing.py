"""Made-up groups of requests that share a prefix: lengths, share and reuse are set.

    prompt = prefix of the group (share * length tokens) + tokens of its own

Each group draws one length (5 % deviation) and one share (2 points deviation) from
the lists, and a number of requests. With `reuse_distance` d, the members of a group
come about d requests apart (a third of d deviation). Without it, whole
repetitions, `prefixes_per_class` groups for each length and share, are shuffled.
Arrivals are Poisson.

Source   the shared-prefix workloads of the Lodestar paper's repository; defaults
         are its parameters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from lodestar_router.core.block_keys import TokenArray
from perf.routing.workloads.base import Ask, random_seed, random_tokens, spread_around

_LENGTH_DEVIATION = 0.05  # of the length
_SHARE_DEVIATION = 0.02
_DISTANCE_DEVIATION = 1 / 3  # of the distance
_LEAST_PROMPT_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """See the module."""

    prompt_tokens: tuple[float, ...] = (1000, 2000, 4000, 8000)
    share: tuple[float, ...] = (0.5,)
    requests_per_prefix: tuple[int, int] = (5, 10)  # lowest, highest
    reuse_distance: float | None = 30.0  # requests; None: shuffled repetitions
    output_tokens: tuple[float, float] = (100, 20)  # mean, deviation
    prefixes_per_class: int = 15

    def asks(self, rng: np.random.Generator, vocab_size: int) -> Iterator[tuple[float, Ask]]:
        """See Workload; the vocabulary plays no part."""
        members = self._shuffled(rng) if self.reuse_distance is None else self._spaced(rng)
        for prefix, length in members:
            own = random_tokens(rng, max(1, length - len(prefix)))
            output = spread_around(rng, *self.output_tokens)
            tokens = np.concatenate((prefix, own))
            yield float(rng.exponential()), Ask(tokens, output, random_seed(rng))

    def _group(
        self, rng: np.random.Generator, length: float, share: float
    ) -> list[tuple[TokenArray, int]]:
        """(prefix, prompt tokens) of every request of a new group."""
        lowest, highest = self.requests_per_prefix
        tokens = spread_around(rng, length, length * _LENGTH_DEVIATION, _LEAST_PROMPT_TOKENS)
        if share:
            share = float(np.clip(rng.normal(share, _SHARE_DEVIATION), 0.0, 1.0))
        prefix = random_tokens(rng, int(tokens * share))
        return [(prefix, tokens)] * int(rng.integers(lowest, highest + 1))

    def _spaced(self, rng: np.random.Generator) -> Iterator[tuple[TokenArray, int]]:
        """Groups begin evenly; before the first request some are under way already."""
        distance = self.reuse_distance or 1.0
        lowest, highest = self.requests_per_prefix
        every = (lowest + highest) / 2  # requests between two groups
        begins = -distance * highest
        waiting: list[tuple[float, int, TokenArray, int]] = []
        group = 0
        while True:
            while not waiting or begins <= waiting[0][0]:
                length = float(rng.choice(self.prompt_tokens))
                place = begins
                for prefix, tokens in self._group(rng, length, float(rng.choice(self.share))):
                    heappush(waiting, (place, group, prefix, tokens))
                    place += max(1.0, rng.normal(distance, distance * _DISTANCE_DEVIATION))
                    group += 1
                begins += every
            place, _, prefix, tokens = heappop(waiting)
            if place >= 0.0:
                yield prefix, tokens

    def _shuffled(self, rng: np.random.Generator) -> Iterator[tuple[TokenArray, int]]:
        classes = [(length, share) for length in self.prompt_tokens for share in self.share]
        while True:
            members: list[tuple[TokenArray, int]] = []
            for length, share in classes * self.prefixes_per_class:
                members += self._group(rng, length, share)
            for index in rng.permutation(len(members)).tolist():
                yield members[index]
