"""What is written waits a little for what follows it, and then goes out together.

A write costs the router, the system and whoever it wakes some microseconds each, however
small it is.

    at the turn's end    requests, answers, ends of streams: when the loop has dealt with
                         what it found ready, so that a receiver is woken once for all
    within TOGETHER_S    parts of a stream that come faster than that, all but the first of
                         them. Tokens that come tens of milliseconds apart are each sent as
                         they come; nobody reads a thousand a second one by one

Out      `flush` of everybody who asked for it, once.
Cost     a call per turn, a timer per TOGETHER_S for all clients; none while nothing waits.
"""

import asyncio
from typing import Protocol

TOGETHER_S = 0.001  # a twentieth of the time between two tokens that people read


class Holder(Protocol):
    """Somebody who holds bytes back."""

    def flush(self) -> None:
        """Send them, if they are not sent yet."""


class Outbox:
    """Who is to flush, and when; one for all connections of a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._this_turn: list[Holder] = []
        self._soon: list[Holder] = []

    def this_turn(self, holder: Holder) -> None:
        """Have `holder` flush at the end of the loop's turn."""
        if not self._this_turn:
            self._loop.call_soon(self._end_turn)
        self._this_turn.append(holder)

    def soon(self, holder: Holder) -> None:
        """Have `holder` flush within TOGETHER_S."""
        if not self._soon:
            self._loop.call_later(TOGETHER_S, self._end_wait)
        self._soon.append(holder)

    def _end_turn(self) -> None:
        holders, self._this_turn = self._this_turn, []
        for holder in holders:
            holder.flush()

    def _end_wait(self) -> None:
        holders, self._soon = self._soon, []
        for holder in holders:
            holder.flush()
