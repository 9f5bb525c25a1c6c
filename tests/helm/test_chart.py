"""Our chart: what it makes of values, and that the router takes it."""

from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

from lodestar_router.config import Config
from tests.helm.rendering import CHART, Rendered, Values, hardened, parsed, pod, volumes_match

STATIC: Values = {
    "engines": [
        {"url": "http://a:8000", "gpu": "A30", "scheduler_stats": "tcp://*:5559"},
        {"url": "http://b:8000"},
    ]
}
DISCOVERED: Values = {"discovery": {"enabled": True, "labelSelector": "app=vllm,tier in (a,b)"}}
EVERYTHING: Values = {
    **STATIC,
    **DISCOVERED,
    "replicaCount": 2,
    "extraArgs": ["--routing-logic=lmetric"],
    "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}],
    "extraVolumes": [{"name": "tls", "secret": {"secretName": "tls"}}],
    "extraVolumeMounts": [{"name": "tls", "mountPath": "/etc/tls", "readOnly": True}],
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"operator": "Exists"}],
    "imagePullSecrets": [{"name": "registry"}],
    "podDisruptionBudget": {"enabled": True},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
}
CASES = [
    pytest.param(STATIC, id="static"),
    pytest.param(DISCOVERED, id="discovered"),
    pytest.param(EVERYTHING, id="everything"),
]


def config_of(rendered: Rendered, tmp_path: Path) -> Config:
    """The settings that the router would start with."""
    (container,) = pod(rendered.one("Deployment"))["containers"]
    directories = {"/var/lib/lodestar": tmp_path}
    if "ConfigMap" in rendered.kinds():
        engines = rendered.one("ConfigMap", "demo-lodestar-router")["data"]["engines.yaml"]
        (tmp_path / "engines.yaml").write_text(engines, encoding="utf-8")
        directories["/etc/lodestar"] = tmp_path
    return parsed(container, directories)


@pytest.mark.parametrize("values", CASES)
def test_lint_has_nothing_to_say(values: Values) -> None:
    report = helm.lint(CHART, values, strict=True, namespace="models", kube_version="v1.31.0")

    worse_than_info = [message for message in report["messages"] or [] if message["severity"] > 1]
    assert not report["errors"]
    assert not worse_than_info


def test_router_takes_the_arguments_for_named_engines(tmp_path: Path) -> None:
    config = config_of(Rendered(CHART, STATIC), tmp_path)

    assert [spec.url for spec in config.engines] == ["http://a:8000", "http://b:8000"]
    assert config.engines[0].gpu == "A30"
    assert config.service_discovery == "static"
    assert config.state_dir == tmp_path
    assert (config.host, config.port) == ("0.0.0.0", 8000)


def test_router_takes_the_arguments_for_discovery(tmp_path: Path) -> None:
    config = config_of(Rendered(CHART, DISCOVERED), tmp_path)

    assert config.service_discovery == "k8s"
    assert config.k8s_namespace == "models"
    assert config.k8s_label_selector == "app=vllm,tier in (a,b)"
    assert config.k8s_service_discovery_type == "pod-ip"
    assert config.k8s_port == 8000


def test_extra_arguments_win_over_the_charts(tmp_path: Path) -> None:
    values = {**STATIC, "extraArgs": ["--drain-timeout=7", "--routing-logic=lmetric"]}

    config = config_of(Rendered(CHART, values), tmp_path)

    assert config.drain_timeout_s == 7
    assert config.routing_logic == "lmetric"


def test_router_has_ended_before_kubernetes_kills_it(tmp_path: Path) -> None:
    rendered = Rendered(CHART, {**STATIC, "terminationGracePeriodSeconds": 600})

    config = config_of(rendered, tmp_path)

    assert pod(rendered.one("Deployment"))["terminationGracePeriodSeconds"] == 600
    assert config.drain_timeout_s == 595


@pytest.mark.parametrize("values", CASES)
def test_pod_may_run_where_everything_is_restricted(values: Values) -> None:
    spec = pod(Rendered(CHART, values).one("Deployment"))

    assert hardened(spec)
    assert volumes_match(spec)


@pytest.mark.parametrize("values", CASES)
def test_service_and_probes_reach_the_port_that_the_router_listens_on(values: Values) -> None:
    rendered = Rendered(CHART, values)
    deployment, service = rendered.one("Deployment"), rendered.one("Service")
    (container,) = pod(deployment)["containers"]

    assert container["ports"] == [{"name": "http", "containerPort": 8000}]
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    paths = {
        probe: container[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert paths == {
        "startupProbe": "/health",
        "livenessProbe": "/health",
        "readinessProbe": "/ready",
    }
    assert all(container[probe]["httpGet"]["port"] == "http" for probe in paths)


@pytest.mark.parametrize(
    ("kind", "resources"),
    [("pod-ip", ["pods"]), ("service-name", ["services", "endpoints"])],
)
def test_rights_are_to_read_what_discovery_reads(kind: str, resources: list[str]) -> None:
    discovery = {"enabled": True, "labelSelector": "a=b", "type": kind, "namespace": "engines"}

    rendered = Rendered(CHART, {"discovery": discovery})

    role, binding = rendered.one("Role"), rendered.one("RoleBinding")
    account = rendered.one("ServiceAccount")["metadata"]
    assert role["rules"] == [
        {"apiGroups": [""], "resources": resources, "verbs": ["get", "list", "watch"]}
    ]
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "engines"
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["name"], "namespace": "models"}
    ]


def test_named_engines_take_no_rights_and_no_token() -> None:
    rendered = Rendered(CHART, STATIC)

    assert rendered.kinds() == ["ConfigMap", "Deployment", "Service", "ServiceAccount"]
    assert pod(rendered.one("Deployment"))["automountServiceAccountToken"] is False


def test_everything_that_is_optional_can_be_had() -> None:
    rendered = Rendered(CHART, EVERYTHING)

    optional = {"PodDisruptionBudget", "ServiceMonitor", "PrometheusRule", "Role"}
    assert optional <= set(rendered.kinds())
    deployment, service = rendered.one("Deployment"), rendered.one("Service")
    monitor = rendered.one("ServiceMonitor")
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    budget = rendered.one("PodDisruptionBudget")["spec"]
    assert budget["selector"]["matchLabels"] == deployment["spec"]["selector"]["matchLabels"]


def test_monitoring_can_be_had_alone() -> None:
    monitoring = {"prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}

    rendered = Rendered(CHART, {"enabled": False, "monitoring": monitoring})

    assert rendered.kinds() == ["ConfigMap", "PrometheusRule"]
    rules = yaml.safe_load((CHART / "monitoring/alerts.yaml").read_text(encoding="utf-8"))
    assert rendered.one("PrometheusRule")["spec"] == rules
    dashboard = (CHART / "monitoring/dashboard.json").read_text(encoding="utf-8")
    data = rendered.one("ConfigMap")["data"]["lodestar-router.json"]
    assert data.strip() == dashboard.strip()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param({}, "no engines", id="no-engines"),
        pytest.param({"discovery": {"enabled": True}}, "labelSelector", id="every-pod"),
        pytest.param({**STATIC, "terminationGracePeriodSeconds": 5}, "10 or more", id="no-time"),
    ],
)
def test_values_that_cannot_work_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(helm.HelmError, match=words):
        Rendered(CHART, values)
