"""Endpoints that a flag would serve: their 404 says which."""

from collections.abc import Sequence

from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.messages import Request, error_body
from lodestar_router.proxy.service import Access


class SwitchedOff:
    """A group of them."""

    def __init__(self, roots: Sequence[str], message: str) -> None:
        self._roots = roots
        self._message = message

    def serves(self, path: str) -> bool:
        """Whether `path` is one of them."""
        return any(path == root or path.startswith(root + "/") for root in self._roots)

    def open_to(self, path: str) -> Access:
        """Nobody learns more here than a client may."""
        return Access.CLIENTS

    async def __call__(self, request: Request, client: ClientConnection) -> None:
        """Answer one request."""
        client.send(404, error_body(404, self._message, "switched_off"))
