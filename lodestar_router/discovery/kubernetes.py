"""Engines in Kubernetes: every pod with an address, or every service.

    pod-ip          pods ─► one engine per pod
    service-name    services, Endpoints ─► one engine per service

In       a namespace and a label selector; the API server.
Out      the engines there are now. Engines themselves are never asked here: that is
         their watches' work, so an engine that hangs delays no other.
Errors   none leave run(); see reflector.py.

Needs the rights get, list, watch on pods, or on services and endpoints. `gpu_node_label`
alone needs more: get on nodes.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any

from lodestar_router.core.types import UNKNOWN_GPU, EngineId
from lodestar_router.discovery.base import Discovered
from lodestar_router.discovery.kubernetes_api import KubernetesApi, Resource, own_namespace
from lodestar_router.discovery.nodes import NodeLabels
from lodestar_router.discovery.pods import Pod, pod_of
from lodestar_router.discovery.reflector import Reflector, Timings
from lodestar_router.discovery.services import endpoints_of, service_of
from lodestar_router.tasks import cancel, spawn


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesSettings:
    """Where to look; equal settings find the same."""

    by_service: bool
    namespace: str
    label_selector: str
    port: int  # of engines that do not say theirs
    gpu_node_label: str = ""  # label of nodes that names their GPU kind; "": do not ask
    timings: Timings = field(default_factory=Timings)


class PodSource:
    """One engine per pod."""

    def __init__(self, api: KubernetesApi, settings: KubernetesSettings, rng: Random) -> None:
        self._api = api
        self._pods = Reflector(
            api,
            Resource.PODS,
            settings.label_selector,
            lambda item: pod_of(item, settings.port),
            rng=rng,
            timings=settings.timings,
        )
        self._nodes = NodeLabels(api, settings.gpu_node_label) if settings.gpu_node_label else None

    @property
    def reflectors(self) -> "Sequence[Reflector[Any]]":
        """What is mirrored: for their counters and troubles."""
        return (self._pods,)

    @property
    def synced(self) -> bool:
        """Whether the pods were listed."""
        return self._pods.synced

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """Lists, watches, events and troubles."""
        return _counters(self.reflectors)

    def current(self) -> Sequence[Discovered]:
        """One engine per address; of two pods at one, the ready or newer one."""
        chosen: dict[EngineId, Pod] = {}
        for pod in self._pods.items.values():
            other = chosen.get(pod.engine.spec.engine_id)
            if other is None or _rank(pod) > _rank(other):
                chosen[pod.engine.spec.engine_id] = pod
        return [self._with_gpu(pod) for pod in chosen.values()]

    def _with_gpu(self, pod: Pod) -> Discovered:
        engine = pod.engine
        if self._nodes is None or engine.spec.gpu != UNKNOWN_GPU:
            return engine
        gpu = self._nodes.value(pod.node)
        return replace(engine, spec=replace(engine.spec, gpu=gpu)) if gpu else engine

    async def run(self, changed: Callable[[], None]) -> None:
        """Follow the pods until cancelled."""
        if self._nodes is not None:
            self._nodes.changed = changed
        try:
            await self._pods.run(changed)
        finally:
            if self._nodes is not None:
                await self._nodes.stop()
            await self._api.close()


def _rank(pod: Pod) -> tuple[bool, str]:
    return not pod.engine.not_ready, pod.created


class ServiceSource:
    """One engine per service."""

    def __init__(self, api: KubernetesApi, settings: KubernetesSettings, rng: Random) -> None:
        self._api = api
        domain = settings.namespace if own_namespace() not in (None, settings.namespace) else ""
        self._services = Reflector(
            api,
            Resource.SERVICES,
            settings.label_selector,
            lambda item: service_of(item, settings.port, domain),
            rng=rng,
            timings=settings.timings,
        )
        # Endpoints that somebody else maintains need not bear the service's labels.
        self._endpoints = Reflector(
            api, Resource.ENDPOINTS, "", endpoints_of, rng=rng, timings=settings.timings
        )

    @property
    def reflectors(self) -> "Sequence[Reflector[Any]]":
        """What is mirrored: for their counters and troubles."""
        return self._services, self._endpoints

    @property
    def synced(self) -> bool:
        """Whether services and their endpoints were listed."""
        return self._services.synced and self._endpoints.synced

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """Lists, watches, events and troubles, of services and of endpoints."""
        return _counters(self.reflectors)

    def current(self) -> Sequence[Discovered]:
        """One engine per service; held while nothing ready is behind it."""
        ready = dict(self._endpoints.items.values())
        return [
            _behind(service, ready.get(service.spec.name, ""))
            for service in self._services.items.values()
        ]

    async def run(self, changed: Callable[[], None]) -> None:
        """Follow services and endpoints until cancelled."""
        tasks = [
            spawn(reflector.run(changed), name=f"kubernetes {reflector.resource}")
            for reflector in (self._services, self._endpoints)
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(*tasks)
            await self._api.close()


def _counters(reflectors: "Sequence[Reflector[Any]]") -> Mapping[str, Mapping[str, int]]:
    return {str(reflector.resource): asdict(reflector.counters) for reflector in reflectors}


def _behind(service: Discovered, addresses: str) -> Discovered:
    """The service with what is behind it; other pods may serve other adapters."""
    if not addresses or service.not_ready == "terminating":
        return service
    return replace(service, not_ready="", revision=f"{service.revision} {addresses}")


Kubernetes = PodSource | ServiceSource


async def kubernetes_source(settings: KubernetesSettings, rng: Random) -> Kubernetes:
    """The source for `settings`.

    Raises:
        ConfigError: there are no credentials for an API server.
    """
    api = await KubernetesApi.connect(settings.namespace)
    return (ServiceSource if settings.by_service else PodSource)(api, settings, rng)
