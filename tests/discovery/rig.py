"""A source in front of a fake API server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from random import Random

from kubernetes_asyncio.client import ApiClient, Configuration

from lodestar_router.discovery.base import Discovered
from lodestar_router.discovery.kubernetes import (
    Kubernetes,
    KubernetesSettings,
    PodSource,
    ServiceSource,
)
from lodestar_router.discovery.kubernetes_api import KubernetesApi
from lodestar_router.discovery.reflector import Timings
from lodestar_router.tasks import cancel, spawn
from tests.discovery.fake_api import NAMESPACE, FakeApiServer

# No list is repeated within a test unless it says so.
QUICK = Timings(
    relist_s=60.0, list_timeout_s=2.0, grace_s=0.1, backoff_s=0.02, max_backoff_s=0.1, settled_s=5.0
)
RELISTING = replace(QUICK, relist_s=0.3)


def kubernetes_api(server: FakeApiServer) -> KubernetesApi:
    return KubernetesApi(ApiClient(Configuration(host=server.url)), NAMESPACE)


@dataclass
class Running:
    """A source that follows, and how often it said that something changed."""

    source: Kubernetes
    changes: int = 0

    def changed(self) -> None:
        self.changes += 1

    @property
    def engines(self) -> dict[str, Discovered]:
        return {engine.spec.name: engine for engine in self.source.current()}

    def shows(self, *names: str) -> bool:
        return sorted(self.engines) == sorted(names)


@asynccontextmanager
async def following(
    server: FakeApiServer,
    *,
    by_service: bool = False,
    selector: str = "environment=test",
    gpu_node_label: str = "",
    timings: Timings = QUICK,
) -> AsyncIterator[Running]:
    settings = KubernetesSettings(
        by_service=by_service,
        namespace=NAMESPACE,
        label_selector=selector,
        port=8000,
        gpu_node_label=gpu_node_label,
        timings=timings,
    )
    make = ServiceSource if by_service else PodSource
    running = Running(make(kubernetes_api(server), settings, Random(0)))
    task = spawn(running.source.run(running.changed), name="source")
    try:
        yield running
    finally:
        await cancel(task)


async def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait for it, however slow the machine is."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)
