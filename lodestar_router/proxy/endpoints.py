"""The frame around endpoints that take their time: methods, errors, the request's id.

Errors   every RouterError becomes its status; anything else is a bug, logged, and 500.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from lodestar_router.errors import RouterError
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.messages import Header, Request, error_body, error_response
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.request_ids import RequestIds
from lodestar_router.proxy.service import Access

_logger = logging.getLogger(__name__)


class Call:
    """One request to such an endpoint, and the way back."""

    def __init__(
        self, request: Request, client: ClientConnection, request_id: str, item: str
    ) -> None:
        self.request = request
        self.client = client
        self.request_id = request_id
        self.item = item  # the one of many that the path names; "" if it names none

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
Methods = Mapping[bytes, Endpoint]


class Frame:
    """Runs endpoints."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ids = RequestIds()

    async def run(
        self, endpoint: Endpoint, request: Request, client: ClientConnection, *, item: str = ""
    ) -> None:
        """Answer one request."""
        call = Call(request, client, self._ids.of(request), item)
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


class Tree:
    """A service of many things alike: /ROOT, /ROOT/{item} and /ROOT/{item}/{part}; for clients."""

    def __init__(
        self,
        root: str,
        metrics: Metrics,
        *,
        all: Methods,
        one: Methods,
        parts: Mapping[str, Methods],
    ) -> None:
        self._root = root
        self._frame = Frame(metrics)
        self._all = all
        self._parts = {"": one, **parts}

    def serves(self, path: str) -> bool:
        """Whether `path` is below the root."""
        return path == self._root or path.startswith(self._root + "/")

    def open_to(self, path: str) -> Access:
        """Every client's."""
        return Access.CLIENTS

    async def __call__(self, request: Request, client: ClientConnection) -> None:
        """Answer one request."""
        item, _, part = request.path[len(self._root) + 1 :].partition("/")
        methods = self._parts.get(part) if item else self._all
        if methods is None:
            client.send_not_found(request.path)
        elif request.method in methods:
            await self._frame.run(methods[request.method], request, client, item=item)
        else:
            client.send_method_not_allowed(b", ".join(methods))
