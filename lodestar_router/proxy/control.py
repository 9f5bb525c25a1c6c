"""The router's own endpoints: what it serves, how it is, what it decided."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

import msgspec

from lodestar_router import __version__
from lodestar_router.core.fleet import Fleet
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.messages import Request
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.service import Access

Describe = Callable[[], Any]

_MODELS = "/v1/models"
_OPEN = frozenset({"/health", "/ready", "/metrics", "/version"})  # probes and scrapers have no key


class ControlHandler:
    """GET endpoints.

    Args:
        engines: describes every engine and the views of it, for /engines.
        config: the effective configuration, without secrets.
        health: (status, body) of /health and /ready, unless the router drains.
        other_models: cards of models that no engine serves.
        decisions: the latest decisions, newest last, each explained in plain values.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        metrics: Metrics,
        engines: Describe,
        config: Describe,
        decisions: Callable[[], list[dict[str, Any]]],
        health: Callable[[], tuple[int, Any]] = lambda: (200, {"status": "healthy"}),
        other_models: Sequence[Any] = (),
    ) -> None:
        self.leaving = False  # the router drains
        self._fleet = fleet
        self._metrics = metrics
        self._engines = engines
        self._health = health
        self._decisions = decisions
        self._paths: dict[str, Callable[[Request], Any]] = {
            "/version": lambda _: {"version": __version__},
            _MODELS: lambda _: {
                "object": "list",
                "data": [*self._fleet.models(), *other_models],
            },
            "/engines": lambda _: self._engines(),
            "/debug/config": lambda _: config(),
            "/debug/decisions": self._latest_decisions,
        }

    def serves(self, path: str) -> bool:
        """Whether `path` is one of these endpoints."""
        return path in _OPEN or path in self._paths

    def open_to(self, path: str) -> Access:
        """Who may use `path` where clients have keys."""
        if path in _OPEN:
            return Access.ALL
        return Access.ADMINS if path in self._paths and path != _MODELS else Access.CLIENTS

    def __call__(self, request: Request, client: ClientConnection) -> None:
        """Answer one request."""
        if request.method != b"GET":
            client.send_method_not_allowed(b"GET")
        elif request.path == "/metrics":
            client.send(200, self._metrics.exposition(), content_type=Metrics.content_type)
        elif request.path in ("/health", "/ready"):
            status, body = (503, {"status": "draining"}) if self.leaving else self._health()
            client.send(status, msgspec.json.encode(body))
        else:
            client.send(200, msgspec.json.encode(self._paths[request.path](request)))

    def _latest_decisions(self, request: Request) -> list[dict[str, Any]]:
        """Newest first; `?request_id=` picks one request, `?limit=` says how many."""
        query = parse_qs(request.target.partition(b"?")[2].decode("latin-1"))
        wanted = query.get("request_id", [""])[0]
        limit = query.get("limit", ["20"])[0]
        chosen = [
            decision
            for decision in reversed(self._decisions())
            if not wanted or decision["request_id"] == wanted
        ]
        return chosen[: int(limit) if limit.isdigit() else 20]
