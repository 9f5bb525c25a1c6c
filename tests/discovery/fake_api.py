"""A Kubernetes API server as far as the router looks: lists and watches over real HTTP.

It keeps every change, so a watch may start from any version that it still has, and it
goes wrong on request:

    down            answers 503 to everything; `stop` and `start` refuse connections
    silent          a watch is accepted and tells nothing, not even its end
    lose            the next changes are made without an event for them
    compact         forgets old versions: watches from them are answered 410, in a 200 stream
    close_watches   ends all watches, as a server does now and then
    say             any bytes into all watches
    forbid          403 for a resource
    slow_s          before any answer
"""

import asyncio
import contextlib
import copy
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from aiohttp import web

NAMESPACE = "llm"
_KINDS = {"pods": "Pod", "services": "Service", "endpoints": "Endpoints"}


class FakeApiServer:
    """Objects in one namespace; change them with `put` and `delete`."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []  # method, path, query
        self.calls: Counter[str] = Counter()  # "list pods", "watch pods", ...
        self.opened = 0  # watches that `say` and `close_watches` reach
        self.down = False
        self.silent = False
        self.lose = False
        self.early_end_s: float | None = None  # how long watches last, whatever was asked for
        self.forbidden: set[str] = set()
        self.slow_s = 0.0
        self.nodes: dict[str, dict[str, str]] = {}  # name -> labels
        self.bookmarks_s: float | None = None
        self.page: int | None = None  # most objects per list answer
        self.port = 0
        self._objects: dict[tuple[str, str], dict[str, Any]] = {}
        self._events: list[tuple[int, str, dict[str, Any]]] = []  # version, resource, event
        self._version = 100
        self._oldest = 100
        self._watches: list[asyncio.Queue[bytes | None]] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> "FakeApiServer":
        app = web.Application()
        app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/{{resource}}", self._get)
        app.router.add_get("/api/v1/nodes/{name}", self._node)
        app.router.add_route("*", "/{path:.*}", self._other)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        self.close_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # ---- what happens in the cluster ----

    def put(self, resource: str, item: Mapping[str, Any]) -> None:
        """Create or change an object."""
        stored = copy.deepcopy(dict(item))
        key = (resource, stored["metadata"]["name"])
        old = self._objects.get(key)
        if old is not None and old["metadata"]["uid"] != stored["metadata"]["uid"]:
            self.delete(*key)
            old = None
        self._version += 1
        stored["metadata"]["resourceVersion"] = str(self._version)
        self._objects[key] = stored
        self._tell(resource, "ADDED" if old is None else "MODIFIED", stored)

    def delete(self, resource: str, name: str) -> None:
        """Delete an object at once."""
        self._version += 1
        gone = self._objects.pop((resource, name))
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._tell(resource, "DELETED", gone)

    def get(self, resource: str, name: str) -> dict[str, Any]:
        """A copy to change and put back."""
        return copy.deepcopy(self._objects[(resource, name)])

    def _tell(self, resource: str, kind: str, item: dict[str, Any]) -> None:
        if self.lose:
            return
        event = {"type": kind, "object": copy.deepcopy(item)}
        self._events.append((self._version, resource, event))
        self._wake()

    # ---- what goes wrong ----

    def compact(self) -> None:
        """Forget every version before the present one."""
        self._oldest = self._version
        self._events.clear()

    def close_watches(self) -> None:
        for queue in self._watches:
            queue.put_nowait(None)

    def say(self, line: bytes) -> None:
        for queue in self._watches:
            queue.put_nowait(line)

    def _wake(self) -> None:
        for queue in self._watches:
            queue.put_nowait(b"")

    # ---- HTTP ----

    async def _get(self, request: web.Request) -> web.StreamResponse:
        resource = request.match_info["resource"]
        watch = request.query.get("watch") in ("true", "True", "1")
        self.calls[f"{'watch' if watch else 'list'} {resource}"] += 1
        self.requests.append((request.method, request.path, dict(request.query)))
        await asyncio.sleep(self.slow_s)
        if self.down:
            return _status(503, "etcdserver: leader changed")
        if resource in self.forbidden or resource not in _KINDS:
            return _status(403, f'{resource} is forbidden: User "router" cannot list')
        return await (self._watch if watch else self._list)(request, resource)

    async def _node(self, request: web.Request) -> web.Response:
        self.calls["get nodes"] += 1
        self.requests.append((request.method, request.path, dict(request.query)))
        if "nodes" in self.forbidden:
            return _status(403, "nodes is forbidden")
        name = request.match_info["name"]
        if name not in self.nodes:
            return _status(404, f'nodes "{name}" not found')
        return web.json_response({"metadata": {"name": name, "labels": self.nodes[name]}})

    async def _other(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path, dict(request.query)))
        return _status(403, f"{request.method} {request.path} is forbidden")

    async def _list(self, request: web.Request, resource: str) -> web.Response:
        selector = request.query.get("labelSelector", "")
        found = [
            item
            for (kind, _), item in sorted(self._objects.items())
            if kind == resource and _matches(item, selector)
        ]
        start = int(request.query.get("continue", "0"))
        count = min(self.page or 10**9, int(request.query.get("limit", "0")) or 10**9)
        metadata = {"resourceVersion": str(self._version)}
        if start + count < len(found):
            metadata["continue"] = str(start + count)
        return web.json_response(
            {"kind": f"{_KINDS[resource]}List", "apiVersion": "v1", "metadata": metadata,
             "items": found[start : start + count]}
        )  # fmt: skip

    async def _watch(self, request: web.Request, resource: str) -> web.StreamResponse:
        version = int(request.query.get("resourceVersion") or "0")
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        if version < self._oldest:
            gone = {"kind": "Status", "code": 410, "reason": "Expired",
                    "message": f"too old resource version: {version} ({self._oldest})"}  # fmt: skip
            await answer.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return answer
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._watches.append(queue)
        self.opened += 1
        lasts_s = float(request.query.get("timeoutSeconds", "1800"))
        if self.early_end_s is not None:
            lasts_s = self.early_end_s
        if self.silent:
            lasts_s = 3600.0
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            async with asyncio.timeout(lasts_s):
                await self._serve(answer, queue, request, resource, version)
        self._watches.remove(queue)
        return answer

    async def _serve(
        self,
        answer: web.StreamResponse,
        queue: "asyncio.Queue[bytes | None]",
        request: web.Request,
        resource: str,
        version: int,
    ) -> None:
        selector = request.query.get("labelSelector", "")
        while True:
            for number, kind, event in list(self._events):
                if number <= version or self.silent:
                    continue
                version = number
                if kind == resource and _matches(event["object"], selector):
                    await answer.write(json.dumps(event).encode() + b"\n")
            line: bytes | None = b""
            try:
                async with asyncio.timeout(self.bookmarks_s):
                    line = await queue.get()
            except TimeoutError:
                if not self.silent:
                    metadata = {"resourceVersion": str(self._version)}
                    mark = {"kind": _KINDS[resource], "metadata": metadata}
                    line = json.dumps({"type": "BOOKMARK", "object": mark}).encode() + b"\n"
            if line is None:
                return
            if line:
                await answer.write(line)


def _matches(item: Mapping[str, Any], selector: str) -> bool:
    labels = item["metadata"].get("labels", {})
    wanted = dict(pair.split("=") for pair in selector.split(",") if pair)
    return all(labels.get(key) == value for key, value in wanted.items())


def _status(code: int, message: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "message": message}
    return web.json_response(body, status=code)
