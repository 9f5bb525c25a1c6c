"""Which pods are engines, and what they say of them."""

from typing import Any

import pytest

from lodestar_router.discovery.pods import pod_of
from lodestar_router.discovery.reflector import MalformedObjectError
from tests.discovery.objects import pod


@pytest.mark.parametrize(
    ("fields", "not_ready"),
    [
        pytest.param({}, "", id="ready"),
        pytest.param({"ready": False}, "pod not ready", id="not-ready"),
        pytest.param(
            {"ready": False, "reason": "ReadinessGatesNotReady"},
            "pod not ready (ReadinessGatesNotReady)",
            id="readiness-gate",
        ),
        pytest.param({"deleted": True}, "terminating", id="terminating-though-ready"),
        pytest.param({"phase": "Pending", "ready": False}, "pod not ready", id="starting"),
    ],
)
def test_pod_takes_requests_when_its_condition_says_so(
    fields: dict[str, Any], not_ready: str
) -> None:
    found = pod_of(pod(**fields), 8000)

    assert found is not None
    assert found.engine.not_ready == not_ready


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"ip": ""}, id="no-address-yet"),
        pytest.param({"phase": "Failed"}, id="evicted"),
        pytest.param({"phase": "Failed", "ip": ""}, id="evicted-and-address-cleared"),
        pytest.param({"phase": "Succeeded"}, id="succeeded"),
    ],
)
def test_pod_that_runs_nothing_is_no_engine(fields: dict[str, Any]) -> None:
    assert pod_of(pod(**fields), 8000) is None


def test_pod_without_conditions_is_not_ready() -> None:
    bare = pod()
    del bare["status"]["conditions"]

    found = pod_of(bare, 8000)

    assert found is not None
    assert found.engine.not_ready == "pod not ready"


def test_engine_is_named_by_its_address_and_its_pod() -> None:
    found = pod_of(pod("vllm-7c9", ip="10.1.2.3", uid="u1"), 8000)

    assert found is not None
    spec = found.engine.spec
    assert (spec.engine_id, spec.url) == ("10.1.2.3:8000", "http://10.1.2.3:8000")
    assert (spec.name, found.engine.uid) == ("vllm-7c9", "u1")
    assert spec.labels["model"] == "llama"


def test_ipv6_address_is_bracketed() -> None:
    found = pod_of(pod(ip="fd00:0:0::1"), 8000)

    assert found is not None
    assert found.engine.spec.url == "http://[fd00::1]:8000"


def test_hints_come_from_annotations() -> None:
    annotations = {
        "lodestar.ai/gpu": "A30",
        "lodestar.ai/model": "llama",
        "lodestar.ai/port": "8080",
        "lodestar.ai/kv-events-port": "5557, 5558",
        "lodestar.ai/kv-replay-port": "5567,5568",
        "lodestar.ai/scheduler-stats-port": "5559",
    }

    found = pod_of(pod(annotations=annotations), 8000)

    assert found is not None
    spec = found.engine.spec
    assert (spec.gpu, spec.model, spec.url) == ("A30", "llama", "http://10.0.0.1:8080")
    assert spec.kv_events == ("tcp://*:5557", "tcp://*:5558")
    assert spec.kv_replay == ("tcp://*:5567", "tcp://*:5568")
    assert spec.scheduler_stats == ("tcp://*:5559",)
    assert found.engine.warnings == ()


@pytest.mark.parametrize(
    ("annotations", "warning"),
    [
        ({"lodestar.ai/kv-events-port": "http"}, "kv-events-port: 'http' is no port"),
        ({"lodestar.ai/port": "70000"}, "port: '70000' is no port"),
        ({"lodestar.ai/kv-replay-port": "1"}, "kv-replay-port: not as many as kv-events-port"),
        ({"lodestar.ai/kv-events-port": "10.0.0.9:1"}, "'10.0.0.9:1' is no port"),
    ],
)
def test_wrong_hint_is_left_out_and_said(annotations: dict[str, str], warning: str) -> None:
    found = pod_of(pod(annotations=annotations), 8000)

    assert found is not None
    assert warning in found.engine.warnings[0]
    assert found.engine.spec.url == "http://10.0.0.1:8000"
    assert found.engine.spec.kv_events == found.engine.spec.kv_replay == ()


_PRODUCT = "nvidia.com/gpu.product"


def affinity(*kinds: str) -> dict[str, Any]:
    expression = {"key": _PRODUCT, "operator": "In", "values": list(kinds)}
    term = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}}


@pytest.mark.parametrize(
    ("fields", "gpu"),
    [
        pytest.param({"labels": {_PRODUCT: "NVIDIA-A30"}}, "NVIDIA-A30", id="label"),
        pytest.param({"labels": {"lodestar.ai/gpu": "A30"}}, "A30", id="own-label"),
        pytest.param(
            {"labels": {_PRODUCT: "x"}, "annotations": {"lodestar.ai/gpu": "A30"}},
            "A30",
            id="annotation-wins",
        ),
        pytest.param({"spec": {"nodeSelector": {_PRODUCT: "V100"}}}, "V100", id="node-selector"),
        pytest.param({"spec": affinity("A100")}, "A100", id="affinity"),
        pytest.param({"spec": affinity("A100", "A30")}, "unknown", id="affinity-to-two"),
        pytest.param({}, "unknown", id="nothing-said"),
    ],
)
def test_gpu_kind(fields: dict[str, Any], gpu: str) -> None:
    found = pod_of(pod(**fields), 8000)

    assert found is not None
    assert found.engine.spec.gpu == gpu


def test_sleeping_label_is_seen() -> None:
    asleep, awake = pod_of(pod(labels={"sleeping": "true"}), 8000), pod_of(pod(), 8000)

    assert asleep is not None
    assert awake is not None
    assert (asleep.engine.asleep, awake.engine.asleep) == (True, False)


def test_revision_follows_labels_and_annotations_and_nothing_else() -> None:
    def revision(**fields: Any) -> str:
        found = pod_of(pod(**fields), 8000)
        assert found is not None
        return found.engine.revision

    assert revision() == revision(ready=False, node="node-2")
    assert revision() != revision(annotations={"lora-modified": "2026-01-01T00:00:00Z"})
    assert revision() != revision(labels={"lora": "sql"})


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"metadata": {"name": "x"}},
        {"metadata": {"name": 1, "uid": "u"}},
        {"metadata": None},
        pod(ip="not-an-address"),
        pod(ip="fd00::zz"),
    ],
)
def test_what_is_no_pod_is_malformed(item: dict[str, Any]) -> None:
    with pytest.raises(MalformedObjectError):
        pod_of(item, 8000)


@pytest.mark.parametrize("part", ["spec", "status"])
@pytest.mark.parametrize("content", [None, [], "x", 3])
def test_parts_of_the_wrong_type_count_as_missing(part: str, content: object) -> None:
    pod_of({**pod(), part: content}, 8000)


@pytest.mark.parametrize("field", ["labels", "annotations", "creationTimestamp"])
@pytest.mark.parametrize("content", [None, [], "x", {"a": None}, {"a": {}}])
def test_metadata_of_the_wrong_type_counts_as_missing(field: str, content: object) -> None:
    item = pod()
    item["metadata"][field] = content

    assert pod_of(item, 8000) is not None
