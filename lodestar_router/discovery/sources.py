"""From settings to sources of engines."""

from collections.abc import Awaitable, Callable
from random import Random

from lodestar_router.config import Config
from lodestar_router.discovery.base import Source
from lodestar_router.discovery.static import StaticSource

# Whatever is asked for: a watch that hangs shows in nothing else.
_RELIST_MAX_S = 300.0

MakeSource = Callable[[], Awaitable[Source]]


def sources_of(config: Config) -> list[tuple[object, MakeSource]]:
    """(key, how to make it) of each source; equal keys mean the same source."""
    sources: list[tuple[object, MakeSource]] = [(config.engines, _static(config))]
    if config.service_discovery == "k8s":
        sources.append(_kubernetes(config))
    return sources


def _static(config: Config) -> MakeSource:
    async def make() -> Source:
        return StaticSource(config.engines)

    return make


def _kubernetes(config: Config) -> tuple[object, MakeSource]:
    # The client library takes 40 MB and some tenths of a second: only where it is needed.
    from lodestar_router.discovery.kubernetes import KubernetesSettings, kubernetes_source
    from lodestar_router.discovery.reflector import Timings

    usual = Timings()
    settings = KubernetesSettings(
        by_service=config.k8s_service_discovery_type == "service-name",
        namespace=config.k8s_namespace,
        label_selector=config.k8s_label_selector,
        port=config.k8s_port,
        gpu_node_label=config.k8s_gpu_node_label,
        timings=Timings(
            relist_s=min(config.k8s_watcher_timeout_s, _RELIST_MAX_S) or usual.relist_s
        ),
    )

    async def make() -> Source:
        return await kubernetes_source(settings, Random())

    return settings, make
