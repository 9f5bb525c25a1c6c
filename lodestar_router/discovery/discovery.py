"""Runs the sources and hands on their union whenever it changes.

    sources ─changed()─► union of what they tell ─apply()─► the running router

In       sources by key; a key is all that makes a source what it is.
Out      apply(engines), one call at a time, always with the newest union.
Cost     one task and one per source. Changes that come while one is applied are one.
Errors   a source that ends is a bug: `failed` says so, its last word stays in force.

When sources are exchanged, engines of the old ones stay until all new ones have told
theirs: a source that cannot be reached takes no engine away.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from lodestar_router.core.types import EngineId
from lodestar_router.discovery.base import Discovered, Source
from lodestar_router.tasks import cancel, spawn

_logger = logging.getLogger(__name__)

Apply = Callable[[Sequence[Discovered]], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Running:
    key: object
    source: Source
    task: asyncio.Task[None]
    ends: bool  # a source that has nothing to follow may end


class Discovery:
    """The sources in use."""

    def __init__(self, apply: Apply) -> None:
        self._apply = apply
        self._sources: list[_Running] = []
        self._leaving: list[Sequence[Discovered]] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._warned: set[str] = set()
        self.applied = asyncio.Event()  # set once the engines of all sources are known

    @property
    def synced(self) -> bool:
        """Whether every source has told its engines."""
        return all(running.source.synced for running in self._sources)

    @property
    def failed(self) -> bool:
        """Whether a source follows nothing any more."""
        tasks = [running.task for running in self._sources if not running.ends]
        return any(task.done() for task in [*tasks, *([self._task] if self._task else [])])

    def gauges(self) -> Iterator[tuple[str, str, dict[str, str], float]]:
        """(name, help, labels, value) for /metrics."""
        yield (
            "lodestar:discovery_up",
            "1 if every source of engines has told them and is followed.",
            {},
            float(self.synced and not self.failed),
        )
        for running in self._sources:
            for resource, counts in running.source.counters().items():
                for event, count in counts.items():
                    labels = {"resource": resource, "event": event}
                    help_text = "What happened to the mirror of a Kubernetes resource."
                    yield "lodestar:discovery_events", help_text, labels, count

    async def use(self, sources: Sequence[tuple[object, Callable[[], Awaitable[Source]]]]) -> None:
        """Have exactly these (key, how to make it) from now on; equal keys run on.

        What making a source raises is passed on, and everything is as before.
        """
        keys = [key for key, _ in sources]
        known = [running.key for running in self._sources]
        new = [(key, await make()) for key, make in sources if key not in known]
        gone = [running for running in self._sources if running.key not in keys]
        self._leaving.extend(running.source.current() for running in gone)
        kept = [running for running in self._sources if running.key in keys]
        self._sources = [*kept, *(self._start(key, source) for key, source in new)]
        await cancel(*(running.task for running in gone))
        self._changed.set()
        if self._task is None:
            self._task = spawn(self._follow(), name="discovery")

    def _start(self, key: object, source: Source) -> _Running:
        task = spawn(source.run(self._changed.set), name="discovery source")
        return _Running(key, source, task, ends=source.synced)

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            synced = self.synced
            if synced:
                self._leaving.clear()
            await self._apply(self._union())
            if synced:
                self.applied.set()

    def _union(self) -> list[Discovered]:
        engines: dict[EngineId, Discovered] = {}
        told = [running.source.current() for running in self._sources]
        for found in (*told, *self._leaving):
            for engine in found:
                engines.setdefault(engine.spec.engine_id, engine)
        for engine in engines.values():
            self._warn(engine)
        return list(engines.values())

    def _warn(self, engine: Discovered) -> None:
        for warning in engine.warnings:
            line = f"engine {engine.spec.name or engine.spec.engine_id}: {warning}"
            if line not in self._warned:
                self._warned.add(line)
                _logger.warning("%s", line)

    async def stop(self) -> None:
        """End every source."""
        await cancel(self._task, *(running.task for running in self._sources))
