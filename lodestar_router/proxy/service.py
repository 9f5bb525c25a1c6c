"""What a group of the router's own endpoints is to the HTTP server, if it has to wait."""

from enum import Enum
from typing import Protocol

from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.messages import Request


class Access(Enum):
    """Whose keys open an endpoint."""

    ALL = "all"
    CLIENTS = "clients"
    ADMINS = "admins"


class Service(Protocol):
    """A group of endpoints."""

    def serves(self, path: str) -> bool:
        """Whether `path` is one of them."""

    def open_to(self, path: str) -> Access:
        """Who may use `path` where clients have keys."""

    async def __call__(self, request: Request, client: ClientConnection) -> None:
        """Answer one request, whatever comes of it."""
