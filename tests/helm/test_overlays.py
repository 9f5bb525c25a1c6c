"""The values files for the production-stack chart.

PRODUCTION_STACK_CHART names a copy of its directory `helm`, version 0.1.12; what takes the
chart itself is left out without it.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lodestar_router.config import parse
from lodestar_router.discovery.hints import hints_in
from tests.helm.rendering import (
    HELM,
    ROOT,
    Rendered,
    hardened,
    merged,
    parsed,
    pod,
    values_of,
    volumes_match,
)

ROUTER = HELM / "values-lodestar.yaml"
PD = HELM / "values-lodestar-pd.yaml"
OVERLAYS = sorted(HELM.glob("values-lodestar*.yaml"))
_VERSION = "0.1.12"
_CHART = os.environ.get("PRODUCTION_STACK_CHART", "")
with_chart = pytest.mark.skipif(not _CHART, reason="PRODUCTION_STACK_CHART is not given")
# modelSpec of the chart's own tests: without one it makes no engine.
OWN_ENGINES = {
    "servingEngineSpec": {
        "modelSpec": [
            {
                "name": "own",
                "repository": "vllm/vllm-openai",
                "tag": "latest",
                "modelURL": "m",
                "replicaCount": 1,
                "requestCPU": 1,
                "requestMemory": "1Gi",
                "requestGPU": 1,
            }
        ]
    }
}


def rendered(*overlays: Path, **values: Any) -> Rendered:
    """The production-stack chart with overlays over values of its own."""
    return Rendered(Path(_CHART), {**OWN_ENGINES, **values_of(*overlays), **values})


def engine_specs() -> list[Any]:
    """Every modelSpec in the overlays."""
    return [
        pytest.param(spec, id=spec["name"])
        for overlay in OVERLAYS
        for spec in values_of(overlay).get("servingEngineSpec", {}).get("modelSpec", [])
    ]


def test_routers_own_arguments_are_flags_it_knows(tmp_path: Path) -> None:
    extra = values_of(ROUTER)["routerSpec"]["extraArgs"]

    config = parse(
        [
            *("--service-discovery", "k8s"),
            *(argument.replace("/var/lib/lodestar", str(tmp_path)) for argument in extra),
        ],
        {},
    )

    assert config.routing_logic == "lodestar"
    assert config.drain_timeout_s < 30  # Kubernetes kills then; the chart has no other


@pytest.mark.parametrize("spec", engine_specs())
def test_hints_name_the_ports_that_the_engine_opens(spec: dict[str, Any]) -> None:
    flags = spec["vllmConfig"]["extraArgs"]
    events = json.loads(flags[flags.index("--kv-events-config") + 1])

    hints = hints_in(spec["podAnnotations"], {})

    assert spec["vllmConfig"]["enablePrefixCaching"] is True
    assert events["enable_kv_cache_events"] is True
    assert events["publisher"] == "zmq"
    assert hints.kv_events == (events["endpoint"],)
    assert hints.kv_replay == (events["replay_endpoint"],)
    assert hints.scheduler_stats == ("tcp://*:5559",)  # where the plugin binds by itself


def test_gpu_kinds_of_the_mixed_fleet_differ() -> None:
    specs = values_of(HELM / "values-lodestar-mixed-gpu.yaml")["servingEngineSpec"]["modelSpec"]

    kinds = {hints_in(spec["podAnnotations"], {}).gpu for spec in specs}

    assert kinds == {"A100", "A30"}
    assert len({spec["modelURL"] for spec in specs}) == 1


def test_roles_are_the_names_that_become_labels_and_engines_hand_over(tmp_path: Path) -> None:
    values = values_of(ROUTER, PD)
    extra = [
        argument.replace("/var/lib/lodestar", str(tmp_path))
        for argument in values["routerSpec"]["extraArgs"]
    ]
    before = values_of(ROUTER)["routerSpec"]["extraArgs"]

    config = parse(["--service-discovery", "k8s", *extra], {})

    specs = {spec["name"]: spec for spec in values["servingEngineSpec"]["modelSpec"]}
    assert set(specs) == {*config.prefill_model_labels, *config.decode_model_labels}
    assert len({spec["modelURL"] for spec in specs.values()}) == 1
    for spec in specs.values():
        flags = spec["vllmConfig"]["extraArgs"]
        transfer = json.loads(flags[flags.index("--kv-transfer-config") + 1])
        assert transfer["kv_connector"] == "NixlConnector"
        assert [each["name"] for each in spec["env"]] == ["VLLM_NIXL_SIDE_CHANNEL_HOST"]
    kept = {each for each in before if not each.startswith("--routing-logic")}
    assert kept <= set(values["routerSpec"]["extraArgs"])


@with_chart
def test_pods_bear_their_role_and_their_address() -> None:
    engines = rendered(ROUTER, PD)

    for role in ("prefill", "decode"):
        template = engines.one("Deployment", f"-qwen-{role}-deployment-vllm")["spec"]["template"]
        assert template["metadata"]["labels"]["model"] == f"qwen-{role}"
        (container,) = template["spec"]["containers"]
        env = {each["name"]: each for each in container["env"]}
        address = env["VLLM_NIXL_SIDE_CHANNEL_HOST"]["valueFrom"]["fieldRef"]["fieldPath"]
        assert address == "status.podIP"
        assert "--kv-transfer-config" in container["command"]


@with_chart
@pytest.mark.parametrize("logic", ["disaggregated_prefill", "disaggregated_prefill_orchestrated"])
def test_values_for_the_other_router_s_disaggregated_prefill_are_taken(logic: str) -> None:
    labels = ["--prefill-model-labels", "llama-prefill", "--decode-model-labels", "llama-decode"]
    others = {"routingLogic": logic, "enablePD": True, "extraArgs": labels}
    image = {"repository": "lodestar-router", "tag": "latest"}
    values = {"routerSpec": others | image}
    (container,) = pod(Rendered(Path(_CHART), values).one("Deployment", "router"))["containers"]

    config = parsed(container, {})

    assert config.routing_logic == logic
    assert config.prefill_model_labels == ("llama-prefill",)


@with_chart
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_router_takes_the_arguments_of_the_chart(overlay: Path, tmp_path: Path) -> None:
    spec = pod(rendered(ROUTER, overlay).one("Deployment", "router"))
    (container,) = spec["containers"]

    config = parsed(container, {"/var/lib/lodestar": tmp_path})

    assert container["image"] == "lodestar-router:latest"
    wanted = "disaggregated_prefill_orchestrated" if overlay == PD else "lodestar"
    assert config.routing_logic == wanted
    assert config.service_discovery == "k8s"
    assert config.k8s_namespace == "models"
    assert config.k8s_label_selector == "environment=test,release=test"
    assert container["ports"][0]["containerPort"] == config.port
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert hardened(spec)
    assert volumes_match(spec)


@with_chart
def test_router_takes_static_engines_of_the_chart(tmp_path: Path) -> None:
    values = values_of(ROUTER)
    values["routerSpec"] |= {
        "serviceDiscovery": "static",
        "staticBackends": "http://a:8000,http://b:8000",
        "staticModels": "m,m",
    }
    (container,) = pod(Rendered(Path(_CHART), values).one("Deployment", "router"))["containers"]

    config = parsed(container, {"/var/lib/lodestar": tmp_path})

    assert [spec.url for spec in config.engines] == ["http://a:8000", "http://b:8000"]


@with_chart
@pytest.mark.parametrize("image_alone", [False, True])
def test_settings_for_the_other_router_are_taken(tmp_path: Path, image_alone: bool) -> None:
    others = {
        "routingLogic": "kvaware",
        "sessionKey": "x-user-id",
        "rootPath": "/vllm",
        "prefixMinMatchLength": 128,
        "engineScrapeInterval": 15,
        "requestStatsWindow": 60,
        "lmcacheControllerPort": "9000",
        "lmcacheControllerReplyPort": "9001",
        "lmcacheControllerHeartbeatPort": "9002",
        "otel": {"endpoint": "collector:4317", "secure": True},
    }
    image = {"routerSpec": {"repository": "lodestar-router", "tag": "latest"}}
    values = merged({"routerSpec": others}, image if image_alone else values_of(ROUTER))
    (container,) = pod(Rendered(Path(_CHART), values).one("Deployment", "router"))["containers"]

    config = parsed(container, {} if image_alone else {"/var/lib/lodestar": tmp_path})

    assert config.routing_logic == ("kvaware" if image_alone else "lodestar")
    assert (config.session_key, config.root_path) == ("x-user-id", "/vllm")


@with_chart
def test_patch_gives_the_router_time_to_end(tmp_path: Path) -> None:
    copy = tmp_path / "checkout" / "helm"
    shutil.copytree(_CHART, copy)
    (patch,) = (ROOT / "patches" / f"production-stack-chart-{_VERSION}").glob("*.patch")
    subprocess.run(["git", "apply", patch], cwd=copy.parent, check=True)
    values = merged(values_of(ROUTER), {"routerSpec": {"terminationGracePeriodSeconds": 305}})

    without, patched = Rendered(copy, values_of(ROUTER)), Rendered(copy, values)

    assert without.objects == Rendered(Path(_CHART), values_of(ROUTER)).objects
    spec = pod(patched.one("Deployment", "router"))
    assert spec["terminationGracePeriodSeconds"] == 305


@with_chart
def test_router_alone_is_swapped_and_swapped_back() -> None:
    before, swapped = rendered(), rendered(ROUTER)

    changed = [
        (old["kind"], old["metadata"]["name"])
        for old, new in zip(before.objects, swapped.objects, strict=True)
        if old != new
    ]

    assert changed == [("Deployment", "demo-deployment-router")]
    old, new = (each.one("Deployment", "router")["spec"] for each in (before, swapped))
    assert old["selector"] == new["selector"]  # Kubernetes refuses to change it


@with_chart
@pytest.mark.parametrize("name", ["engines", "mixed-gpu", "pd"])
def test_engines_start_with_prefix_caching_and_events(name: str) -> None:
    overlay = HELM / f"values-lodestar-{name}.yaml"

    engines = rendered(ROUTER, overlay)

    for spec in values_of(overlay)["servingEngineSpec"]["modelSpec"]:
        template = engines.one("Deployment", f"-{spec['name']}-deployment-vllm")["spec"]["template"]
        (container,) = template["spec"]["containers"]
        command = container["command"]
        assert "--enable-prefix-caching" in command
        assert json.loads(command[command.index("--kv-events-config") + 1])
        assert template["metadata"]["annotations"] == spec["podAnnotations"]
        # Pods with these labels are what the chart tells the router to look for.
        wanted = {"environment": "test", "release": "test"}
        assert wanted.items() <= template["metadata"]["labels"].items()


@with_chart
def test_monitored_installs_scrape_router_and_engines() -> None:
    objects = rendered(ROUTER, HELM / "values-lodestar-monitored.yaml")

    assert objects.kinds().count("ServiceMonitor") == 2
    service = objects.one("Service", "router")
    ports = {port["name"] for port in service["spec"]["ports"]}
    assert objects.one("ServiceMonitor", "router")["spec"]["endpoints"][0]["port"] in ports


@with_chart
def test_rights_that_the_chart_gives_are_enough() -> None:
    (rule,) = rendered(ROUTER).one("Role", "reader")["rules"]

    assert rule["resources"] == ["pods"]
    assert {"get", "list", "watch"} <= set(rule["verbs"])
