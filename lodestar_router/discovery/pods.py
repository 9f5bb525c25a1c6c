"""What a pod means to the router.

In       a pod as the API server tells it.
Out      the engine in it, or None: it has none yet, or none any more.
Errors   MalformedObjectError for what is no pod.

    no address, or phase Failed (evicted too) or Succeeded    no engine
    being deleted                                             no new requests
    condition Ready not True                                  no new requests
    label sleeping=true                                       no new requests, unless the
                                                              engine says that it is awake

The condition Ready counts, not the state of containers: it also carries readiness gates,
and it is what turns false when a node dies.
"""

import hashlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass

from lodestar_router.config.addresses import engine_id_of
from lodestar_router.core.types import UNKNOWN_GPU, EngineSpec
from lodestar_router.discovery.base import Discovered
from lodestar_router.discovery.hints import hints_in
from lodestar_router.discovery.kubernetes_api import Json
from lodestar_router.discovery.objects import items, mapping, metadata_of, text, text_list, texts
from lodestar_router.discovery.reflector import MalformedObjectError

GPU_LABEL = "nvidia.com/gpu.product"  # set by NVIDIA's GPU feature discovery
_SLEEPING_LABEL = "sleeping"  # as production-stack's router writes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """An engine's pod, and what chooses between two pods at one address."""

    engine: Discovered
    node: str
    created: str  # RFC 3339 in UTC, so text order is time order


def pod_of(item: Json, default_port: int) -> Pod | None:
    """Read one pod; None if there is no engine in it."""
    metadata = metadata_of(item)
    spec, status = mapping(item.get("spec")), mapping(item.get("status"))
    address = text(status.get("podIP"))
    if not address or status.get("phase") in ("Failed", "Succeeded"):
        return None
    labels, annotations = texts(metadata.get("labels")), texts(metadata.get("annotations"))
    hints = hints_in(annotations, labels)
    url = f"http://{_host(address)}:{hints.port or default_port}"
    engine = Discovered(
        spec=EngineSpec(
            engine_id=engine_id_of(url),
            url=url,
            name=metadata["name"],
            gpu=hints.gpu or _gpu(labels, spec) or UNKNOWN_GPU,
            model=hints.model,
            kv_events=hints.kv_events,
            kv_replay=hints.kv_replay,
            scheduler_stats=hints.scheduler_stats,
            labels=labels,
        ),
        uid=metadata["uid"],
        not_ready=_not_ready(metadata, status),
        asleep=labels.get(_SLEEPING_LABEL) == "true",
        revision=revision_of(labels, annotations),
        warnings=hints.warnings,
    )
    created = text(metadata.get("creationTimestamp"))
    return Pod(engine=engine, node=text(spec.get("nodeName")), created=created)


def _host(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError as error:
        raise MalformedObjectError(f"podIP {address!r} is no address") from error
    return str(ip) if ip.version == 4 else f"[{ip.compressed}]"


def _not_ready(metadata: Json, status: Json) -> str:
    """Why the pod must get no new requests; "" if it may."""
    if metadata.get("deletionTimestamp"):
        return "terminating"
    for condition in items(status.get("conditions")):
        if condition.get("type") == "Ready":
            if condition.get("status") == "True":
                return ""
            reason = text(condition.get("reason"))
            return f"pod not ready ({reason})" if reason else "pod not ready"
    return "pod not ready"


def _gpu(labels: Mapping[str, str], spec: Json) -> str:
    """The GPU kind, where the pod itself says it or says where it must run."""
    wanted = texts(spec.get("nodeSelector")).get(GPU_LABEL, "")
    return labels.get(GPU_LABEL, "") or wanted or _gpu_by_affinity(spec)


def _gpu_by_affinity(spec: Json) -> str:
    affinity = mapping(mapping(spec.get("affinity")).get("nodeAffinity"))
    required = mapping(affinity.get("requiredDuringSchedulingIgnoredDuringExecution"))
    kinds: set[str] = set()
    for term in items(required.get("nodeSelectorTerms")):
        for expression in items(term.get("matchExpressions")):
            if expression.get("key") == GPU_LABEL and expression.get("operator") == "In":
                kinds.update(text_list(expression.get("values")))
    return kinds.pop() if len(kinds) == 1 else ""  # one of several kinds: only the node knows


def revision_of(labels: Mapping[str, str], annotations: Mapping[str, str]) -> str:
    """Differs when labels or annotations do: adapters come and go with such a change."""
    content = json.dumps([labels, annotations], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
