"""What is asked of every router: the cells of the overhead table, and their requests.

In       a seed.
Out      per cell the bodies it sends in turn; the same seed, the same bytes.

A chat of 2 KB is a system prompt that all share and three turns; one of 32 KB
has thirty. Texts are English prose from the standard library's own manual. After
the first round every body has been seen: the router's caches are warm, as they are
for all but the last message of a conversation. The cell with new turns ends each
chat with a question never asked before.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pydoc_data import topics
from random import Random

from perf.overhead.stub_engine import CHUNKS, MODEL

_CHATS = 97  # more than connections, so that one chat is never on two of them at once
_NEW_TURNS = 20_000  # distinct bodies; a run that needs more starts over with warm ones
_GAP_MS = 20  # 50 tokens/s, a stream that people read
_SYSTEM_BYTES = 400
_TURN_BYTES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One column of the table."""

    name: str
    title: str
    body_bytes: int
    connections: int
    chunks: int = 0  # events of a streamed answer; 0: a JSON answer
    gap_ms: int = 0  # between events
    new_turn_bytes: int = 0  # at the end of every chat
    per_chunk: bool = False  # whether the cost is given per event

    def bodies(self, seed: int) -> list[bytes]:
        """The request bodies, to be sent in turn."""
        prose = "".join(topics.topics.values())
        rng = Random(seed)
        system = _slice(prose, rng, _SYSTEM_BYTES)
        room = self.body_bytes - _SYSTEM_BYTES - self.new_turn_bytes
        chats = [_turns(prose, rng, room) for _ in range(_CHATS)]
        if not self.new_turn_bytes:
            return [self._body(system, turns) for turns in chats]
        return [
            self._body(system, [*chats[i % _CHATS], _slice(prose, rng, self.new_turn_bytes)])
            for i in range(_NEW_TURNS)
        ]

    def _body(self, system: str, turns: list[str]) -> bytes:
        roles = chain(["system"], _alternating(len(turns)))
        messages = [
            {"role": role, "content": text}
            for role, text in zip(roles, [system, *turns], strict=True)
        ]
        body: dict[str, object] = {
            "model": MODEL,
            "messages": messages,
            "stream": bool(self.chunks),
            "max_tokens": self.chunks or 50,
        }
        if self.gap_ms:
            body["user"] = f"{self.gap_ms}ms"
        return json.dumps(body).encode()


def _alternating(count: int) -> Iterator[str]:
    """Roles of the turns; the last is the user's."""
    return ("user" if (count - i) % 2 else "assistant" for i in range(count))


def _turns(prose: str, rng: Random, room_bytes: int) -> list[str]:
    count = max(1, round(room_bytes / _TURN_BYTES)) | 1
    return [_slice(prose, rng, room_bytes // count) for _ in range(count)]


def _slice(prose: str, rng: Random, size: int) -> str:
    start = rng.randrange(len(prose) - size)
    return prose[start : start + size]


CELLS = {
    cell.name: cell
    for cell in (
        Cell(name="json_2k", title="JSON 2 KB", body_bytes=2000, connections=32),
        Cell(name="json_32k", title="JSON 32 KB", body_bytes=32_000, connections=32),
        Cell(
            name="json_2k_new", title="JSON 2 KB, 200 B of it new", body_bytes=2000,
            connections=32, new_turn_bytes=200,
        ),
        Cell(
            name="sse_burst", title=f"SSE burst of {CHUNKS}", body_bytes=2000, connections=32,
            chunks=CHUNKS,
        ),
        Cell(
            name="sse_paced", title="one paced SSE chunk", body_bytes=2000, connections=64,
            chunks=80, gap_ms=_GAP_MS, per_chunk=True,
        ),
    )
}  # fmt: skip

# Added latency is measured with the body of this cell, one request at a time.
LATENCY_CELL = "json_2k"
