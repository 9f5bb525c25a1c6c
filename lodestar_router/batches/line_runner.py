"""One line of a batch through the router, behind everybody who waits for an answer.

    a place among --batch-concurrency ─► a quiet moment ─► one request ─► an answer
         ▲                                                     │
         └──── after a pause ◄── 429, 503: nothing was begun ──┤  until the batch's time is over
                             ◄── 502, 504: an engine failed  ──┘  TRIES times at most

A line that pauses holds no place: a model whose engines are gone holds up no other batch.
"""

import asyncio
from collections.abc import Callable
from random import Random

from lodestar_router.batches.answers import answered, failed
from lodestar_router.batches.lines import Line
from lodestar_router.errors import EngineError
from lodestar_router.proxy.client_connection import Application
from lodestar_router.proxy.inner_client import InnerAnswer, ask
from lodestar_router.proxy.request_reader import Limits

TRIES = 3  # of a line that engines fail: it may be what makes them fail

_NOT_BEGUN = frozenset({429, 503})
_FAILED = frozenset({502, 504})
_PAUSE_S = (1.0, 30.0)  # the first, and the longest
_LOOK_AGAIN_S = 0.1
_QUIET_WITHIN_S = 60.0  # then a line runs all the same: nobody waits for ever


class LineRunner:
    """Runs lines of all batches.

    Args:
        application: the routed endpoints.
        busy: whether others wait at the engines.
        concurrency: how many lines are under way at a time.
        pause_s: the first pause and the longest.
    """

    def __init__(
        self,
        application: Application,
        *,
        busy: Callable[[], bool],
        limits: Limits,
        concurrency: int,
        pause_s: tuple[float, float] = _PAUSE_S,
    ) -> None:
        self._application = application
        self._busy = busy
        self._limits = limits
        self._places = asyncio.Semaphore(concurrency)  # first come, first served: fair to batches
        self._pause_s = pause_s
        self._rng = Random()
        self.concurrency = concurrency
        self.running = 0

    async def run(self, endpoint: str, request_id: str, line: Line) -> tuple[bool, bytes]:
        """(whether it succeeded, the line for the output or error file)."""
        wire = _wire(endpoint, request_id, line.body)
        tries = failures = 0
        while True:
            async with self._places:
                await self._quiet()
                self.running += 1
                try:
                    answer = await ask(
                        self._application, wire, self._limits, most_bytes=self._limits.body_bytes
                    )
                except EngineError as error:
                    answer, why = None, str(error)
                finally:
                    self.running -= 1
            tries += 1
            status = 502 if answer is None else answer.status
            failures += status in _FAILED
            if status not in _NOT_BEGUN and (status not in _FAILED or failures >= TRIES):
                break
            await asyncio.sleep(self._delay_s(tries, answer))
        if answer is None:
            return False, failed(line.custom_id, "engine_failed", why)
        return answered(line.custom_id, request_id, answer)

    async def _quiet(self) -> None:
        """Wait until nobody else waits, within reason."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _QUIET_WITHIN_S
        while self._busy() and loop.time() < until_s:
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _delay_s(self, tries: int, answer: InnerAnswer | None) -> float:
        first_s, longest_s = self._pause_s
        asked = (answer.header(b"retry-after") if answer is not None else None) or b""
        asked_s = min(float(asked), longest_s) if asked.isdigit() and tries > 1 else 0.0
        delay_s = min(first_s * 2.0 ** (tries - 1), longest_s)
        return max(delay_s * (0.5 + self._rng.random()), asked_s)


def _wire(endpoint: str, request_id: str, body: bytes) -> bytes:
    head = (
        f"POST {endpoint} HTTP/1.1\r\n"
        "host: router\r\n"
        "content-type: application/json\r\n"
        f"x-request-id: {request_id}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
