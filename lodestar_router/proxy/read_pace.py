"""How much is read from engines before the loop looks at anything else.

libuv asks the system for 1024 ready sockets at a time, and while it gets as many it asks
again, up to 48 times, before timers, new connections and what else waits have their turn.
Two thousand streams keep it there for seconds: their tokens come as fast as they are relayed.
So once _MANY parts were read in a turn, a connection that is read rests, and _MANY of those
that rest longest go on with the next turn; until none rests, all take turns like that. What
an engine sends meanwhile comes in one piece, which costs the router as much as one token.

In       each part of a stream that was relayed.
Out      connections that rest.
Cost     0.1 us per part; while the loop is so busy some 2 us.
"""

import asyncio
from collections import deque
from typing import Protocol

_MANY = 256  # some 5 ms


class Resting(Protocol):
    """A connection to an engine."""

    transport: asyncio.Transport
    paused: bool  # for another reason
    closed: bool


class ReadPace:
    """One for all connections of a loop."""

    def __init__(self) -> None:
        self._read = 0  # in this turn, and in quiet ones before it: an eighth of _MANY at most
        self._resting: deque[Resting] = deque()
        self._turn: asyncio.Handle | None = None

    def came(self, connection: Resting) -> None:
        """Something was read from `connection` and relayed."""
        self._read += 1
        # A turn is only looked for once there was much to read: few parts cost nothing.
        if self._turn is None and self._read > _MANY // 8:
            self._turn = asyncio.get_running_loop().call_soon(self._end_turn)
        if (self._read > _MANY or self._resting) and not connection.paused:
            connection.transport.pause_reading()
            self._resting.append(connection)

    def _end_turn(self) -> None:
        self._read = 0
        resting = self._resting
        for _ in range(min(_MANY, len(resting))):
            connection = resting.popleft()
            if not (connection.paused or connection.closed or connection.transport.is_closing()):
                connection.transport.resume_reading()
        self._turn = asyncio.get_running_loop().call_soon(self._end_turn) if resting else None
