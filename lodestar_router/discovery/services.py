"""What a service means to the router: one engine, whichever pods are behind it.

In       a service and the Endpoints of the same name.
Out      the engine, or None for what is no service to send requests to.
Errors   MalformedObjectError for what is no service.

Its labels are those of the pods it selects (production-stack's `model` among them).
An engine behind a service is several pods to the router's eyes: what it caches is known
from what was sent there, and KV events only make sense if there is one pod.
"""

from lodestar_router.config.addresses import engine_id_of
from lodestar_router.core.types import UNKNOWN_GPU, EngineSpec
from lodestar_router.discovery.base import Discovered
from lodestar_router.discovery.hints import Hints, hints_in
from lodestar_router.discovery.kubernetes_api import Json
from lodestar_router.discovery.objects import items, mapping, metadata_of, text, texts
from lodestar_router.discovery.pods import revision_of

_NO_ENDPOINT = "service has no ready endpoint"


def service_of(item: Json, default_port: int, domain: str = "") -> Discovered | None:
    """Read one service, taken for one without endpoints.

    Args:
        domain: put behind the service's name, for a router in another namespace.
    """
    metadata = metadata_of(item)
    spec = mapping(item.get("spec"))
    labels, annotations = texts(metadata.get("labels")), texts(metadata.get("annotations"))
    hints = hints_in(annotations, labels)
    host = metadata["name"] + (f".{domain}" if domain else "")
    url = f"http://{host}:{_port(spec, hints, default_port)}"
    return Discovered(
        spec=EngineSpec(
            engine_id=engine_id_of(url),
            url=url,
            name=metadata["name"],
            gpu=hints.gpu or UNKNOWN_GPU,
            model=hints.model,
            kv_events=hints.kv_events,
            kv_replay=hints.kv_replay,
            scheduler_stats=hints.scheduler_stats,
            labels={**labels, **texts(spec.get("selector"))},
        ),
        uid=metadata["uid"],
        not_ready="terminating" if metadata.get("deletionTimestamp") else _NO_ENDPOINT,
        revision=revision_of(labels, annotations),
        warnings=hints.warnings,
    )


def _port(spec: Json, hints: Hints, default: int) -> int:
    """The port asked for if the service has it, else its first one.

    The chart's engine services listen on 80 while the router is told of the pods' 8000.
    """
    if hints.port is not None:
        return hints.port
    listed = [
        port for each in items(spec.get("ports")) if isinstance(port := each.get("port"), int)
    ]
    return listed[0] if listed and default not in listed else default


def endpoints_of(item: Json) -> tuple[str, str] | None:
    """(name, fingerprint of the ready addresses) of an Endpoints object; None without any."""
    name = metadata_of(item)["name"]
    ready = sorted(
        text(address.get("ip"))
        for subset in items(item.get("subsets"))
        for address in items(subset.get("addresses"))
    )
    return (name, ",".join(ready)) if ready else None
