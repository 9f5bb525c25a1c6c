"""Lengths of an Azure LLM trace, with prefixes that the trace does not tell.

The trace has no content, so sharing is made up: rows sorted by prompt length are
cut into groups of N(group, group / 3) rows; a group shares a prefix of
N(share, 0.2) of its shortest prompt. Rows then come in random order, as Poisson
arrivals: the trace's own times, which are bursts of one service, are not used.

In       a CSV file (plain or .gz): TIMESTAMP,ContextTokens,GeneratedTokens.
Errors   ConfigError for a file that is not there or not such a trace.
Source   github.com/Azure/AzurePublicDataset; groups as in the Lodestar paper's
         repository, except that prompt and answer lengths stay paired.
"""

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lodestar_router.core.block_keys import TokenArray
from lodestar_router.errors import ConfigError
from perf.routing.workloads.base import Ask, random_seed, random_tokens, spread_around

_SHARE_DEVIATION = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Azure:
    """See the module."""

    trace: Path
    share: float = 0.5
    group: float = 10.0  # mean rows that share a prefix
    max_prompt_tokens: int | None = None

    def asks(self, rng: np.random.Generator, vocab_size: int) -> Iterator[tuple[float, Ask]]:
        """See Workload; the vocabulary plays no part."""
        rows = read_lengths(self.trace)
        while True:  # every pass has new prefixes
            members = self._members(rows, rng)
            for index in rng.permutation(len(members)).tolist():
                prefix, tokens, output = members[index]
                own = random_tokens(rng, tokens - len(prefix))
                ask = Ask(np.concatenate((prefix, own)), output, random_seed(rng))
                yield float(rng.exponential()), ask

    def _members(
        self, rows: list[tuple[int, int]], rng: np.random.Generator
    ) -> list[tuple[TokenArray, int, int]]:
        """(prefix, prompt tokens, output tokens) of every row."""
        members: list[tuple[TokenArray, int, int]] = []
        start = 0
        while start < len(rows):
            group = rows[start : start + spread_around(rng, self.group, self.group / 3)]
            start += len(group)
            share = float(np.clip(rng.normal(self.share, _SHARE_DEVIATION), 0.0, 1.0))
            lengths = [min(tokens, self.max_prompt_tokens or tokens) for tokens, _ in group]
            prefix = random_tokens(rng, min(int(min(lengths) * share), min(lengths) - 1))
            members += [
                (prefix, tokens, output) for tokens, (_, output) in zip(lengths, group, strict=True)
            ]
        return members


@lru_cache(maxsize=4)
def read_lengths(path: Path) -> list[tuple[int, int]]:
    """(prompt tokens, output tokens) of all rows, shortest prompts first."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            rows = [
                (max(1, int(row["ContextTokens"])), max(1, int(row["GeneratedTokens"])))
                for row in csv.DictReader(file)
            ]
    except OSError as error:
        raise ConfigError(f"cannot read trace {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not an Azure LLM trace: {error!r}") from error
    if not rows:
        raise ConfigError(f"trace {path} has no rows")
    return sorted(rows)
