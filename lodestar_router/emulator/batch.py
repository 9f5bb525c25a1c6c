"""What a scheduler decides for one step, and what the step brings."""

from typing import NamedTuple

from lodestar_router.emulator.sequence import Sequence


class Chunk(NamedTuple):
    """Part of one sequence's prefill, done in one step."""

    sequence: Sequence
    new_tokens: int
    context_tokens: int  # in the KV cache before
    admitted: bool  # left the queue in this step; its context then is all cache hits


class Batch:
    """What one step computes; `decodes` and `chunks` are in the order of scheduling."""

    __slots__ = (
        "chunks", "decode_kv_tokens", "decodes", "preempted", "prefix_hits_tokens",
        "prefix_queries_tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        self.decodes: list[Sequence] = []
        self.decode_kv_tokens = 0  # sum of their computed tokens
        self.chunks: list[Chunk] = []
        self.preempted: list[Sequence] = []
        self.prefix_queries_tokens = 0  # of sequences admitted for the first time
        self.prefix_hits_tokens = 0


class Output(NamedTuple):
    """What a step brought."""

    emitted: list[Sequence]  # each has one more token
    first: list[Sequence]  # of those, this was the first
    finished: list[Sequence]  # of those, this was the last
