"""/sleep, /wake_up and /is_sleeping of one engine: `?id=` names it, all else goes on to it.

Answers are those of production-stack's router: {"status": "success"} with the engine's
status, and what the engine says to /is_sleeping. What the engine refuses comes back as it
worded it.
"""

from typing import Protocol

from lodestar_router.core.fleet import Fleet
from lodestar_router.core.types import EngineId
from lodestar_router.errors import RequestError
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.endpoints import Call, Frame
from lodestar_router.proxy.engine_ids import engine_meant, without_id
from lodestar_router.proxy.messages import Request
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.service import Access

_METHODS = {"/sleep": b"POST", "/wake_up": b"POST", "/is_sleeping": b"GET"}


class Sleeper(Protocol):
    """Who can ask an engine."""

    async def ask(
        self, engine_id: EngineId, method: str, target: str, body: bytes, request_id: str
    ) -> tuple[int, bytes]:
        """The engine's (status, body).

        Raises:
            EngineError: it does not answer.
        """


class SleepHandler:
    """The three endpoints; an admin's, where clients have keys."""

    def __init__(self, *, fleet: Fleet, sleeper: Sleeper, metrics: Metrics) -> None:
        self._fleet = fleet
        self._sleeper = sleeper
        self._frame = Frame(metrics)

    def serves(self, path: str) -> bool:
        """Whether `path` is one of them."""
        return path in _METHODS

    def open_to(self, path: str) -> Access:
        """An engine that is put to sleep answers nobody."""
        return Access.ADMINS

    async def __call__(self, request: Request, client: ClientConnection) -> None:
        """Answer one request."""
        method = _METHODS[request.path]
        if request.method != method:
            client.send_method_not_allowed(method)
        else:
            await self._frame.run(self._ask, request, client)

    async def _ask(self, call: Call) -> None:
        request = call.request
        wanted, target = without_id(request.target)
        if not wanted:
            raise RequestError("the query names no engine: ?id=, as GET /engines lists them")
        engine_id = engine_meant(self._fleet, wanted)
        if engine_id is None:
            raise RequestError("no engine has this id; GET /engines lists them")
        status, body = await self._sleeper.ask(
            engine_id, request.method.decode(), target.decode("latin-1"), request.body,
            call.request_id,
        )  # fmt: skip
        if status >= 400 or request.path == "/is_sleeping":
            call.send(status, body)
        else:
            call.answer({"status": "success"}, status)
