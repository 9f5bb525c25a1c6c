"""Pods, services and endpoints as the API server tells them, by default ready."""

from typing import Any

LABELS = {"environment": "test", "model": "llama"}
CREATED = "2026-01-01T00:00:00Z"


def pod(
    name: str = "pod-1",
    *,
    ip: str = "10.0.0.1",
    uid: str | None = None,
    ready: bool = True,
    **fields: Any,
) -> dict[str, Any]:
    """A running pod; `labels`, `annotations`, `phase`, `node`, `deleted`, `spec`, `created`."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "llm",
        "uid": uid or f"uid-{name}",
        "labels": {**LABELS, **fields.get("labels", {})},
        "annotations": fields.get("annotations", {}),
        "creationTimestamp": fields.get("created", CREATED),
    }
    if fields.get("deleted"):
        metadata["deletionTimestamp"] = CREATED
    conditions = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": "True" if ready else "False", "reason": fields.get("reason")},
    ]
    status = {
        "phase": fields.get("phase", "Running"),
        "conditions": conditions,
        # What the original looks at: it stays true when a node dies.
        "containerStatuses": [{"name": "vllm", "ready": True}],
    }
    if ip:
        status["podIP"] = ip
    spec = {"nodeName": fields.get("node", "node-1"), **fields.get("spec", {})}
    return {"metadata": metadata, "spec": spec, "status": status}


def service(
    name: str = "llama", *, ports: tuple[int, ...] = (80,), **fields: Any
) -> dict[str, Any]:
    """A service; `labels`, `annotations`."""
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "labels": {"environment": "test", **fields.get("labels", {})},
            "annotations": fields.get("annotations", {}),
        },
        "spec": {
            "selector": {"model": name},
            "ports": [{"name": f"p{port}", "port": port} for port in ports],
        },
    }


def endpoints(name: str = "llama", *addresses: str) -> dict[str, Any]:
    """The endpoints of a service; without addresses there are only some that are not ready."""
    subset = (
        {"addresses": [{"ip": address} for address in addresses]}
        if addresses
        else {"notReadyAddresses": [{"ip": "10.0.0.9"}]}
    )
    return {"metadata": {"name": name, "uid": f"uid-e-{name}"}, "subsets": [subset]}
