"""What a scheduler decides for one step, and what the step brings."""

from typing import NamedTuple

from msgspec import Struct

from lodestar_router.emulator.sequence import Sequence


class Chunk(NamedTuple):
    """Part of one sequence's prefill, done in one step."""

    sequence: Sequence
    new_tokens: int
    context_tokens: int  # in the KV cache before
    admitted: bool  # left the queue in this step; its context then is all cache hits


class Batch(Struct, eq=False):
    """What one step computes; `decodes` and `chunks` are in the order of scheduling."""

    decodes: list[Sequence] = []
    decode_kv_tokens: int = 0  # sum of their computed tokens
    chunks: list[Chunk] = []
    preempted: list[Sequence] = []
    prefix_queries_tokens: int = 0  # of sequences admitted for the first time
    prefix_hits_tokens: int = 0


class Output(Struct, eq=False):
    """What a step brought."""

    emitted: list[Sequence]  # each has one more token
    first: list[Sequence]  # of those, this was the first
    finished: list[Sequence]  # of those, this was the last
