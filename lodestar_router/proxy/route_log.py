"""The line that says where a request went, one per routed request.

    Routing request ID with session id SESSION to URL at EPOCH, process time = SECONDS

Words and order are those of production-stack's router
(src/vllm_router/services/request_service/request.py at a6c01db): its end-to-end tests and
people's log parsers read them. A request of disaggregated prefill has two, that of the
prefill engine first.

In       a decision as it is made.
Out      the lines of one turn of the event loop in one write, in the order of the decisions,
         before any engine's answer to them can be read.
Cost     3 us per request under load; the line of a lone request is a write of its own.
Errors   none: see logs.Lines.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

LOGGER = logging.getLogger(__name__)
_SHOWN_CHARS = 128


class LineWriter(Protocol):
    """Where lines go."""

    @property
    def wanted(self) -> bool:
        """Whether anybody wants them."""

    def write(self, messages: Sequence[tuple[float, str]]) -> None:
        """Write each message with its time, in seconds since the epoch."""


class RouteLog:
    """See the module.

    Args:
        wall_s: seconds since the epoch.
    """

    def __init__(self, lines: LineWriter, *, wall_s: Callable[[], float]) -> None:
        self._lines = lines
        self._wall_s = wall_s
        self._pending: list[tuple[float, str]] = []

    def routed(
        self, request_id: str, session_id: str | None, url: str, *, process_s: float
    ) -> None:
        """The request is about to be sent to the engine at `url`.

        Args:
            request_id: printable, without white space.
            process_s: seconds since the request was read.
        """
        if not self._lines.wanted:
            return
        at_s = self._wall_s()
        session = "None" if session_id is None else _shown(session_id)
        if not self._pending:
            asyncio.get_running_loop().call_soon(self.flush)
        self._pending.append(
            (
                at_s,
                f"Routing request {request_id} with session id {session} to {url} at "
                f"{at_s:.6f}, process time = {process_s:.4f}",
            )
        )

    def flush(self) -> None:
        """Write what waits."""
        if self._pending:
            pending, self._pending = self._pending, []
            self._lines.write(pending)


def _shown(session_id: str) -> str:
    """A client's own word, so that it cannot break or forge a line."""
    shown = session_id[:_SHOWN_CHARS]
    if shown.isascii() and shown.isprintable() and " " not in shown:
        return shown or "''"
    return "".join(char if "!" <= char <= "~" else "?" for char in shown)
