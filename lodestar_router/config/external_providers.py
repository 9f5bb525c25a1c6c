"""Models that somebody else serves: production-stack's file of external providers.

    external_providers:
      - name: openai
        type: openai                       # the only type
        api_base: https://api.openai.com   # without /v1
        api_key_env_var: OPENAI_API_KEY    # that variable unless given
        timeout: 30                        # seconds to connect, and between two reads
        max_retries: 3                     # while no connection comes about
        custom_headers: {OpenAI-Organization: org-1}
        models:
          - id: gpt-4o
            aliases: [gpt4o]

In       the file that --external-providers-config names, the environment.
Out      ExternalProvider each. Keys and headers are secrets: they are in no representation.
Errors   ConfigError, one line.
Source   src/vllm_router/external_providers/models.py of production-stack at a6c01db.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lodestar_router.config import converters as to
from lodestar_router.config.addresses import parse_url
from lodestar_router.config.sources import read_yaml
from lodestar_router.config.stack_model import ExternalProvider
from lodestar_router.errors import ConfigError

_DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = frozenset({"content-length", "content-type", "host", "transfer-encoding", "connection"})
_KEYS = frozenset(
    {
        "name", "type", "api_base", "api_key_env_var", "timeout", "max_retries",
        "custom_headers", "models",
    }
)  # fmt: skip


def external_providers(
    path: Path | None, environ: Mapping[str, str]
) -> tuple[ExternalProvider, ...]:
    """Those of the file; none without one.

    Raises:
        ConfigError: it cannot be understood, or a key is missing.
    """
    if path is None:
        return ()
    entries = read_yaml(path).get("external_providers") or []
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: external_providers must be a list")
    providers: list[ExternalProvider] = []
    taken: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            provider = _provider(entry, environ)
            for model in provider.models:
                if taken.setdefault(model, provider.name) != provider.name:
                    raise ValueError(f"model {to.shown(model)} is {taken[model]}'s already")
        except ValueError as error:
            raise ConfigError(f"{path}: provider {number}: {error}") from error
        providers.append(provider)
    if len({provider.name for provider in providers}) < len(providers):
        raise ConfigError(f"{path}: two providers have one name")
    return tuple(providers)


def _provider(entry: Any, environ: Mapping[str, str]) -> ExternalProvider:
    if not isinstance(entry, dict):
        raise ValueError(f"must be a mapping, not {to.shown(entry)}")
    for key in entry:
        if key not in _KEYS:
            raise ValueError(f"unknown key {to.shown(key)}{to.did_you_mean(str(key), _KEYS)}")
    for key in ("name", "type", "api_base"):
        if key not in entry:
            raise ValueError(f"has no {key}")
    to.one_of("type of provider", ["openai"])(entry["type"])
    variable = to.variable(entry.get("api_key_env_var") or _DEFAULT_KEY_VARIABLE)
    key = environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ValueError(f"its key's variable {variable} is not set, or holds no key")
    return ExternalProvider(
        name=to.text(entry["name"]),
        url=parse_url(to.text(entry["api_base"])),
        models=_models(entry.get("models") or []),
        timeout_s=to.seconds(0.1, 86_400)(entry.get("timeout", 30)),
        max_retries=to.whole(0, 100)(entry.get("max_retries", 3)),
        api_key=key,
        headers=_headers(entry.get("custom_headers") or {}),
    )


def _models(entries: Any) -> dict[str, str]:
    if not isinstance(entries, list) or not entries:
        raise ValueError("has no list of models")
    names: dict[str, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or "id" not in entry:
            raise ValueError(f"a model has no id: {to.shown(entry)}")
        model = to.text(entry["id"])
        for name in (model, *map(to.text, entry.get("aliases") or [])):
            if names.setdefault(name, model) != model:
                raise ValueError(f"{to.shown(name)} stands for two models")
    return names


def _headers(entries: Any) -> dict[str, str]:
    if not isinstance(entries, dict):
        raise ValueError("custom_headers must be a mapping")
    headers = {}
    for name, raw in entries.items():
        value = to.text(raw)
        if not _HEADER.fullmatch(str(name)) or str(name).lower() in _FRAMING:
            raise ValueError(f"{to.shown(name)} is no header that can be given")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"header {name} has no valid value")
        headers[str(name).lower()] = value
    return headers
