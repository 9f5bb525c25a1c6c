"""The frame around endpoints that take their time: methods, errors, the request's id.

Errors   every RouterError becomes its status; anything else is a bug, logged, and 500.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from lodestar_router.errors import RouterError
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.messages import Header, Request, error_body, error_response
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.request_ids import RequestIds

_logger = logging.getLogger(__name__)


class Call:
    """One request to such an endpoint, and the way back."""

    def __init__(self, request: Request, client: ClientConnection, request_id: str) -> None:
        self.request = request
        self.client = client
        self.request_id = request_id

    @property
    def id_header(self) -> Header:
        """Told with every answer."""
        return b"x-request-id", self.request_id.encode()

    def answer(self, body: Any, status: int = 200) -> None:
        """Send a value as JSON."""
        self.send(status, msgspec.json.encode(body))

    def send(self, status: int, body: bytes) -> None:
        """Send JSON that is written already."""
        self.client.send(status, body, headers=(self.id_header,))


Endpoint = Callable[[Call], Awaitable[None]]


class Frame:
    """Runs endpoints."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ids = RequestIds()

    async def run(self, endpoint: Endpoint, request: Request, client: ClientConnection) -> None:
        """Answer one request."""
        call = Call(request, client, self._ids.of(request))
        try:
            await endpoint(call)
        except RouterError as error:
            self._metrics.refused(error.code)
            client.write(
                error_response(error, close=not request.keep_alive, request_id=call.request_id)
            )
        except Exception:  # the edge: a bug must not take the connection down
            _logger.exception("request %s failed in the router", call.request_id)
            self._metrics.refused("internal_error")
            call.send(500, error_body(500, "internal error", "internal_error"))
