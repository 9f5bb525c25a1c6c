"""One Kubernetes resource, mirrored: a list, then the changes to it, again and again.

    list ─► watch from its version ─ended by the server─► watch from the last version seen
      ▲                    │
      └─ backoff ◄─ gone, broken, silent, or the list is older than RELIST ─┘

In       a KubernetesApi; what an object means, as a pure function.
Out      `items`: what every object means now. `changed` is called after each change.
Cost     one list per `relist_s`, one open watch.
Errors   none leave run(): they are counted and retried with backoff, and what was known
         stays in force. An object that cannot be read keeps the meaning it had.

The list is repeated whether or not the watch seems well. So an event that was missed, a
server that stopped telling, a connection that died in silence cost at most `relist_s`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

from lodestar_router.discovery.kubernetes_api import (
    ApiError,
    GoneError,
    Json,
    KubernetesApi,
    Resource,
    error_of,
)

_logger = logging.getLogger(__name__)

_EVENTS_AT_ONCE = 64  # between two turns of the event loop: some milliseconds at most

Value = TypeVar("Value")
Convert = Callable[[Json], Value | None]


class MalformedObjectError(ValueError):
    """An object lacks what every object has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """How long to wait for what, in seconds."""

    relist_s: float = 60.0  # a list of a hundred pods is a megabyte
    list_timeout_s: float = 15.0
    grace_s: float = 5.0  # beyond what the server was asked to serve, before it counts as dead
    backoff_s: float = 0.25  # doubles
    max_backoff_s: float = 10.0
    settled_s: float = 5.0  # a watch that lived so long was no failure


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    lists: int = 0
    watches: int = 0
    events: int = 0
    gone: int = 0
    errors: int = 0
    malformed: int = 0


class Reflector(Generic[Value]):
    """Mirrors the objects of one resource that match a selector.

    Args:
        convert: what an object means; None if nothing. MalformedObjectError if it
            cannot be read.
    """

    def __init__(
        self,
        api: KubernetesApi,
        resource: Resource,
        selector: str,
        convert: Convert[Value],
        *,
        rng: Random,
        timings: Timings | None = None,
    ) -> None:
        self.resource = resource
        self.items: dict[str, Value] = {}  # uid -> meaning
        self.synced = False  # whether a list has come through
        self.counters = Counters()
        self.trouble = ""  # the latest error; "" since something came through
        self._api = api
        self._selector = selector
        self._convert = convert
        self._rng = rng
        self._timings = timings or Timings()
        self._version = ""
        self._listed_at_s: float | None = None  # None: a list is due
        self._malformed: set[str] = set()  # said once each

    async def run(self, changed: Callable[[], None]) -> None:
        """Mirror until cancelled."""
        failures = 0
        while True:
            began_s = _now_s()
            events = self.counters.events
            try:
                if self._list_due():
                    await self._list(changed)
                    began_s = _now_s()
                await self._watch(changed)
            except GoneError:
                self.counters.gone += 1
                self._listed_at_s = None
            except ApiError as error:
                self._failed(str(error))
            if _now_s() - began_s >= self._timings.settled_s and not self.trouble:
                failures = 0
                continue
            well = self.counters.events > events and not self.trouble
            failures = 1 if well else failures + 1
            await asyncio.sleep(self._backoff_s(failures))

    def _list_due(self) -> bool:
        return self._listed_at_s is None or _now_s() - self._listed_at_s >= self._timings.relist_s

    def _failed(self, error: str) -> None:
        self.counters.errors += 1
        if error != self.trouble:  # once, not at every attempt
            _logger.warning("Kubernetes: %s; what was known stays in force", error)
        self.trouble = error
        self._listed_at_s = None  # changes may have been missed

    def _backoff_s(self, failures: int) -> float:
        """Exponential, with jitter so that routers do not come back all at once."""
        longest_s = min(
            self._timings.backoff_s * 2.0 ** min(failures - 1, 16), self._timings.max_backoff_s
        )
        return self._rng.uniform(0.5, 1.0) * longest_s

    async def _list(self, changed: Callable[[], None]) -> None:
        self.counters.lists += 1
        listing = await self._api.list(
            self.resource, self._selector, timeout_s=self._timings.list_timeout_s
        )
        before, self.items = self.items, {}
        for item in listing.items:
            self._take(item, before)
        self._version, self._listed_at_s = listing.version, _now_s()
        self.synced = True
        self.trouble = ""
        changed()

    def _take(self, item: Any, before: Mapping[str, Value]) -> None:
        """Keep what an object means; what it meant if it cannot be read."""
        uid = uid_of(item)
        try:
            value = self._convert(item)
        except MalformedObjectError as error:
            self.counters.malformed += 1
            if uid not in self._malformed:
                self._malformed.add(uid)
                _logger.warning("Kubernetes: %s %s: %s", self.resource, uid or "?", error)
            value = before.get(uid)
        if value is None or not uid:
            self.items.pop(uid, None)
        else:
            self.items[uid] = value

    async def _watch(self, changed: Callable[[], None]) -> None:
        self.counters.watches += 1
        # Some earlier or later than other routers that were started with this one.
        serve_s = self._timings.relist_s * self._rng.uniform(0.9, 1.1)
        watch = self._api.watch(
            self.resource,
            self._selector,
            self._version,
            serve_s=serve_s,
            limit_s=max(serve_s, 1.0) + self._timings.grace_s,
        )
        async with aclosing(watch) as events:
            number = 0
            async for event in events:
                self._on_event(event, changed)
                number += 1
                if not number % _EVENTS_AT_ONCE:
                    await asyncio.sleep(0)

    def _on_event(self, event: Json, changed: Callable[[], None]) -> None:
        kind, item = event.get("type"), event.get("object")
        if not isinstance(item, dict):
            raise ApiError(f"watch of {self.resource}: an event without an object")
        if kind == "ERROR":
            raise error_of(item.get("code"), str(item.get("message") or ""))
        if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
            raise ApiError(f"watch of {self.resource}: an event of type {kind!r}")
        self.counters.events += 1
        self.trouble = ""
        if kind == "DELETED":
            self.items.pop(uid_of(item), None)
        elif kind != "BOOKMARK":
            self._take(item, self.items)
        version = (item.get("metadata") or {}).get("resourceVersion")
        if isinstance(version, str) and version:
            self._version = version
        if kind != "BOOKMARK":
            changed()


def uid_of(item: Any) -> str:
    """An object's uid, which no other object ever has; "" if it has none."""
    metadata = item.get("metadata") if isinstance(item, dict) else None
    uid = metadata.get("uid") if isinstance(metadata, dict) else None
    return uid if isinstance(uid, str) else ""


def _now_s() -> float:
    return asyncio.get_running_loop().time()
