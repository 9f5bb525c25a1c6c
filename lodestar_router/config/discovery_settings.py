"""The flags of discovery and dynamic configuration: those of production-stack's router.

Source   src/vllm_router/parsers/parser.py at a6c01db. Same names and meaning; where that
         router stops or goes wrong (see static_backends.py, dynamic.py) this one does not.
"""

from typing import Final

from lodestar_router.config import converters as to
from lodestar_router.config.setting import Setting
from lodestar_router.config.static_backends import aliases, comma_list

_DISCOVERY, _DYNAMIC = "discovery", "dynamic configuration"
_KINDS = ("static", "k8s", "external-only")
_TYPES = ("pod-ip", "service-name")

DISCOVERY_SETTINGS: Final = (
    Setting(
        name="service-discovery", field="service_discovery", group=_DISCOVERY, metavar="KIND",
        convert=to.one_of("service discovery", _KINDS), default="static",
        help="static: the engines that are named; k8s: those that Kubernetes runs, beside "
        "any that --engines names; external-only: of production-stack's router, a router that "
        "may have no engine",
    ),
    Setting(
        name="k8s-service-discovery-type", field="k8s_service_discovery_type",
        group=_DISCOVERY, metavar="TYPE",
        convert=to.blank_is("pod-ip", to.one_of("type", _TYPES)), default="pod-ip",
        help="pod-ip: every pod is an engine; service-name: every service is one",
    ),
    Setting(
        name="k8s-namespace", field="k8s_namespace", group=_DISCOVERY, metavar="NAME",
        convert=to.text, default="default", help="namespace to look in",
    ),
    Setting(
        name="k8s-label-selector", field="k8s_label_selector", group=_DISCOVERY,
        metavar="SELECTOR", convert=to.blank_is("", to.text),
        help="selector of the engines' pods or services, as kubectl takes it",
    ),
    Setting(
        name="k8s-port", field="k8s_port", group=_DISCOVERY, metavar="PORT",
        convert=to.whole(1, 65_535), default="8000",
        help="engines' HTTP port; a service that does not have it is asked at its first one",
    ),
    Setting(
        name="k8s-watcher-timeout-seconds", field="k8s_watcher_timeout_s", group=_DISCOVERY,
        metavar="SECONDS", convert=to.seconds(0, 86_400), default="0",
        help="for how long the API server is asked to serve one watch, after which everything "
        "is listed anew; 0 for 60, at most 300",
    ),
    Setting(
        name="k8s-gpu-node-label", field="k8s_gpu_node_label", group=_DISCOVERY,
        metavar="LABEL", convert=to.blank_is("", to.text),
        help="label of nodes that names their GPU kind, such as nvidia.com/gpu.product, for "
        "pods that do not say it; needs the right to get nodes",
    ),
    Setting(
        name="backend-health-check-timeout-seconds", field="probe_timeout_s",
        group=_DISCOVERY, metavar="SECONDS", convert=to.seconds(0.1, 3600), default="10",
        help="for an engine to answer /v1/models and /is_sleeping",
    ),
    Setting(
        name="static-backends", field="static_backends", group=_DISCOVERY, metavar="URLS",
        convert=comma_list, help="engine URLs with commas between them, one for each of "
        "--static-models; one URL may be repeated for several models",
    ),
    Setting(
        name="static-models", field="static_models", group=_DISCOVERY, metavar="MODELS",
        convert=comma_list, help="the model of each of --static-backends: nothing else is sent "
        "there, whatever it serves. Without this flag engines are asked",
    ),
    Setting(
        name="static-aliases", field="static_aliases", group=_DISCOVERY,
        metavar="ALIAS:MODEL", convert=aliases,
        help="other names of models, with commas between them; requests for an alias are "
        "sent on with the model's name",
    ),
    Setting(
        name="static-model-labels", field="static_model_labels", group=_DISCOVERY,
        metavar="LABELS", convert=comma_list,
        help="a label for each of --static-backends, such as its role in disaggregated prefill",
    ),
    Setting(
        name="static-model-types", field="static_model_types", group=_DISCOVERY,
        metavar="TYPES", convert=comma_list,
        help="what each of --static-backends is checked with: chat, completion, embeddings, "
        "rerank, score, transcription, vision or messages",
    ),
    Setting(
        name="static-backend-health-checks", field="static_backend_health_checks",
        group=_DISCOVERY, metavar=None, convert=to.switch, default="false",
        help="have each of --static-backends answer a real request now and then; needs "
        "--static-models and --static-model-types",
    ),
    Setting(
        name="static-backend-health-check-interval",
        field="static_backend_health_check_interval_s", group=_DISCOVERY, metavar="SECONDS",
        convert=to.seconds(0.1, 86_400), default="60", help="between two such requests",
    ),
    Setting(
        name="static-backend-health-check-timeout-seconds",
        field="static_backend_health_check_timeout_s", group=_DISCOVERY, metavar="SECONDS",
        convert=to.seconds(0.1, 3600), default="10", help="for such a request",
    ),
    Setting(
        name="dynamic-config-yaml", field="dynamic_config_yaml", group=_DYNAMIC,
        metavar="FILE", convert=to.optional(to.file_path),
        help="YAML file of settings that is followed while the router runs; what can change "
        "then wins over flags",
    ),
    Setting(
        name="dynamic-config-json", field="dynamic_config_json", group=_DYNAMIC,
        metavar="FILE", convert=to.optional(to.file_path), help="the same in JSON",
    ),
)  # fmt: skip
