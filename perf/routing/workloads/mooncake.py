"""Requests of a Mooncake trace: who shares which blocks, how long, and when.

    token j of block h = h * tokens_per_block + j

so prompts share tokens exactly where trace rows share block ids. A trace block
stands for 512 tokens; fewer `tokens_per_block` make prompts fit small GPUs and
keep who shares with whom. The last block of a row is partial, in proportion.

Times are the trace's, stretched to the wanted rate. Traces stamped in ticks of
3 s get a jitter within the tick: replayed as they are, they would be bursts. A
seed also chooses the row to begin with; after the last row comes the first.

In       a JSON-lines file (plain or .gz): timestamp (ms), input_length,
         output_length, hash_ids.
Errors   ConfigError for a file that is not there or not such a trace.
Source   github.com/kvcache-ai/Mooncake FAST25-release/traces; the block scaling and
         output scale are those of the Lodestar paper's experiments.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lodestar_router.core.block_keys import TokenArray
from lodestar_router.errors import ConfigError
from perf.routing.workloads.base import Ask, random_seed

BLOCK_TOKENS = 512  # per id, in the published traces
_TICK_S = 3.0


class Row(NamedTuple):
    """One request of a trace."""

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mooncake:
    """See the module."""

    trace: Path
    tokens_per_block: int = BLOCK_TOKENS
    max_prompt_tokens: int | None = None
    output_scale: float = 1.0

    def asks(self, rng: np.random.Generator, vocab_size: int) -> Iterator[tuple[float, Ask]]:
        """See Workload; the vocabulary plays no part."""
        rows = read_trace(self.trace)
        times, order = _arrivals([row.at_s for row in rows], rng)
        span = len(rows)
        ids = 1 + max(max(row.blocks) for row in rows)
        start = int(rng.integers(span))
        before = times[start - 1] - (span if start == 0 else 0)
        for position in range(start, start + 10**9):
            turn, index = divmod(position, span)
            now = times[index] + turn * span
            # Block ids of a second pass differ: its content was not seen in the first.
            yield now - before, self._ask(rows[order[index]], (position - start) // span * ids, rng)
            before = now

    def _ask(self, row: Row, offset: int, rng: np.random.Generator) -> Ask:
        return Ask(
            prompt_tokens(row, self.tokens_per_block, self.max_prompt_tokens, offset),
            max(1, int(row.output_tokens * self.output_scale)),
            random_seed(rng),
        )


def prompt_tokens(
    row: Row, tokens_per_block: int, max_tokens: int | None, offset: int = 0
) -> TokenArray:
    """The row's prompt."""
    size = tokens_per_block
    last = row.input_tokens - BLOCK_TOKENS * (len(row.blocks) - 1)
    length = size * (len(row.blocks) - 1) + max(1, round(last * size / BLOCK_TOKENS))
    if max_tokens is not None:
        length = min(length, max_tokens)
    wanted = -(-length // size)
    first = (np.array(row.blocks[:wanted], dtype=np.uint64) + np.uint64(offset)) * np.uint64(size)
    tokens = first[:, None] + np.arange(size, dtype=np.uint64)  # [blocks, tokens of a block]
    return tokens.reshape(-1)[:length].astype(np.uint32)


@lru_cache(maxsize=4)
def read_trace(path: Path) -> list[Row]:
    """All rows, in order of time."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            rows = [_row(line) for line in file if line.strip()]
    except OSError as error:
        raise ConfigError(f"cannot read trace {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a Mooncake trace: {error!r}") from error
    if len(rows) < 2:
        raise ConfigError(f"trace {path} has {len(rows)} rows; 2 at least are needed")
    return sorted(rows, key=lambda row: row.at_s)


def _row(line: str) -> Row:
    fields = json.loads(line)
    row = Row(
        fields["timestamp"] / 1000.0,
        int(fields["input_length"]),
        int(fields["output_length"]),
        tuple(int(block) for block in fields["hash_ids"]),
    )
    if not row.blocks or row.input_tokens < 1 or min(row.blocks) < 0:
        raise ValueError("a row without blocks or tokens")
    return row


def _arrivals(stamps: list[float], rng: np.random.Generator) -> tuple[list[float], list[int]]:
    """(sorted times in mean request intervals, which row comes at each)."""
    times = np.array(stamps)
    tick_s = _TICK_S if not np.any(np.mod(np.round(times, 3), _TICK_S)) else 0.0
    times = times - times[0] + rng.uniform(0.0, 1.0, len(times)) * tick_s
    span_s = float(np.max(np.array(stamps)) - stamps[0]) + tick_s
    order = np.argsort(times, kind="stable")
    unit = times[order] * (len(times) / max(span_s, 1e-9))
    return unit.tolist(), order.tolist()
