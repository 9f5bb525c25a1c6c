"""The file that is followed while the router runs, in production-stack's format.

    service_discovery: static            {"service_discovery": "static",
    routing_logic: roundrobin             "routing_logic": "roundrobin",
    static_models:                        "static_backends": "http://a:8000,http://b:8000",
      llama:                              "static_models": "llama,llama",
        static_backends:                  "static_aliases": "gpt:llama"}
          - http://a:8000
          - http://b:8000
        static_model_type: chat
    static_aliases: {gpt: llama}

Keys are settings by name. Those in LIVE take effect whenever the file changes, and win over
flags and environment: a chart always gives its flags, so the file could change nothing
otherwise. All other settings may stand in it too; they are read at the start only and give
way to flags. What is no setting is reported, and the rest is applied.

In       a path, YAML or JSON.
Out      name -> Given, apart for LIVE and the rest; the keys that mean nothing.
Errors   ConfigError for a file that cannot be read or is no mapping.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lodestar_router.config.converters import did_you_mean, shown
from lodestar_router.config.settings import BY_NAME
from lodestar_router.config.sources import Given, read_yaml
from lodestar_router.errors import ConfigError

LIVE: Final = frozenset(
    {
        "engines", "engines-file", "service-discovery", "k8s-service-discovery-type",
        "k8s-namespace", "k8s-label-selector", "k8s-port", "k8s-watcher-timeout-seconds",
        "k8s-gpu-node-label", "static-backends", "static-models", "static-aliases",
        "static-model-labels", "static-model-types", "static-backend-health-checks",
        "static-backend-health-check-interval", "static-backend-health-check-timeout-seconds",
        "prefill-model-labels", "decode-model-labels", "pd-policy", "pd-fallback",
        "routing-logic", "policy-mode", "policy-canary", "policy-fallback", "log-level",
        "session-key", "kv-aware-threshold", "prefix-min-match-length",
    }
)  # fmt: skip
_NOT_HERE = frozenset({"config", "dynamic-config-yaml", "dynamic-config-json"})


@dataclass(frozen=True, slots=True)
class DynamicFile:
    """What the file gives."""

    live: Mapping[str, Given] = field(default_factory=dict)
    at_start: Mapping[str, Given] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_dynamic(yaml_path: Path | None, json_path: Path | None) -> DynamicFile:
    """The settings in the one file that is named; nothing if none is.

    Raises:
        ConfigError: the file cannot be understood, or both are named.
    """
    if yaml_path is not None and json_path is not None:
        raise ConfigError("--dynamic-config-yaml and --dynamic-config-json exclude each other")
    if yaml_path is not None:
        return _sorted(yaml_path, _flattened(yaml_path, read_yaml(yaml_path)))
    if json_path is not None:
        return _sorted(json_path, _read_json(json_path))
    return DynamicFile()


def _sorted(path: Path, content: Mapping[object, Any]) -> DynamicFile:
    live: dict[str, Given] = {}
    at_start: dict[str, Given] = {}
    warnings: list[str] = []
    for key, raw in content.items():
        name = str(key).replace("_", "-")
        if name not in BY_NAME or name in _NOT_HERE:
            hint = did_you_mean(name, BY_NAME) if name not in BY_NAME else ""
            warnings.append(f"{path}: {shown(key)} is no setting of this file{hint}; left out")
        elif raw is not None:
            (live if name in LIVE else at_start)[name] = Given(f"{path}: {key}", raw)
    return DynamicFile(live, at_start, tuple(warnings))


def _flattened(path: Path, content: dict[object, Any]) -> dict[object, Any]:
    """`static_models` as a mapping of models is three lists.

    As in the original, a model may name no backends; types count if every model has one.
    """
    models = content.get("static_models")
    if not isinstance(models, Mapping):
        return content
    backends: list[object] = []
    names: list[object] = []
    types: list[object] = []
    for name, details in models.items():
        if isinstance(details, Mapping) and details.get("static_backends") is None:
            continue
        urls = details["static_backends"] if isinstance(details, Mapping) else None
        if not isinstance(urls, list):
            raise ConfigError(f"{path}: static_models: {shown(name)} has no list static_backends")
        backends.extend(urls)
        names.extend([name] * len(urls))
        types.extend([details.get("static_model_type")] * len(urls))
    return {
        **content, "static_backends": backends, "static_models": names,
        **({"static_model_types": types} if all(types) else {}),
    }  # fmt: skip


def _read_json(path: Path) -> dict[object, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: bad JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of names to values")
    return content
