"""From all sources to one Config: precedence, and the checks across settings.

    dynamic file (what it may change while running) > flags > environment
        > dynamic file (all else) > config file > defaults

In       argv without the program's name, environ.
Out      Config.
Errors   ConfigError, one line.
"""

from collections import ChainMap, Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lodestar_router.config.client_keys import client_keys
from lodestar_router.config.converters import did_you_mean
from lodestar_router.config.disaggregated_model import DISAGGREGATED
from lodestar_router.config.disaggregated_settings import check_disaggregated, key_variable
from lodestar_router.config.dynamic import read_dynamic
from lodestar_router.config.engine_specs import Engines, engines
from lodestar_router.config.external_providers import external_providers
from lodestar_router.config.model import Config, EmulatedGroup
from lodestar_router.config.setting import Setting
from lodestar_router.config.settings import BY_NAME, SETTINGS
from lodestar_router.config.sources import (
    ENV_PREFIX,
    Given,
    from_environment,
    from_file,
    from_flags,
    read_yaml,
)
from lodestar_router.config.static_backends import static_specs
from lodestar_router.core.types import EngineId, EngineSpec
from lodestar_router.errors import ConfigError

# production-stack's charts give the router the engines' key in it. It opens their model
# lists; requests of clients are sent on with the clients' own keys.
_PROBE_KEY_VARIABLE = "VLLM_API_KEY"


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """The settings in force now; files are read anew at every call.

    Raises:
        ConfigError: something is wrong; the message is one line.
        SystemExit: -h or --version was asked for, and printed.
    """
    flags = from_flags(argv)
    environment, unknown_variables = from_environment(environ)
    given: ChainMap[str, Given] = ChainMap(flags, environment)
    config_file = _value(BY_NAME["config"], given)
    if config_file is not None:
        given.maps.append(from_file(config_file))
    dynamic = read_dynamic(
        _value(BY_NAME["dynamic-config-yaml"], given), _value(BY_NAME["dynamic-config-json"], given)
    )
    given.maps.insert(0, dict(dynamic.live))
    given.maps.insert(3, dict(dynamic.at_start))

    values: dict[str, Any] = {
        setting.field: _value(setting, given) for setting in SETTINGS if setting.field
    }
    del values["config"]
    if values["reroute_attempts"] is not None:
        values["retries"] = values["reroute_attempts"]
    line, file = values.pop("engines"), _engines_of_file(values.pop("engines_file"))
    specs = (*line.specs, *file.specs, *_static_specs(values))
    emulated = (*line.emulated, *file.emulated)
    providers = external_providers(values["external_providers_config"], environ)
    if specs or emulated or (values["service_discovery"] == "static" and not providers):
        _check_engines(specs, emulated)
    _check_trial(values)
    check_disaggregated(values)
    _check_tls(values)
    _check_session(values)
    keys_env: str | None = values["client_keys_env"]
    api_key_env: str | None = values["api_key_env"] or key_variable(values, environ)
    used = {api_key_env, keys_env, *(spec.api_key_env for spec in specs)}
    unknown = [name for name in unknown_variables if name not in used]
    return Config(
        engines=specs,
        emulated=emulated,
        api_keys=_api_keys(specs, api_key_env, environ),
        api_key=None
        if api_key_env is None
        else _api_key(api_key_env, "--api-key-env: variable", environ),
        client_keys=client_keys(values["client_keys_file"], keys_env, environ),
        external_providers=providers,
        probe_key=environ.get(_PROBE_KEY_VARIABLE, "").strip() or None,
        warnings=(*_warnings(unknown), *dynamic.warnings, *_without_effect(given)),
        **values,
    )


def _value(setting: Setting, given: Mapping[str, Given]) -> Any:
    source = given.get(setting.name, Given(f"--{setting.name}", setting.default))
    try:
        return setting.convert(source.raw)
    except ValueError as error:
        raise ConfigError(f"{source.where}: {error}") from error


def _engines_of_file(path: Path | None) -> Engines:
    if path is None:
        return Engines((), ())
    content = read_yaml(path)
    for key in content:
        if key != "engines":
            hint = did_you_mean(str(key), ["engines"])
            raise ConfigError(f"{path}: unknown key {key!r}{hint}; engines stand under `engines:`")
    try:
        return engines(content.get("engines") or [])
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _static_specs(values: Mapping[str, Any]) -> tuple[EngineSpec, ...]:
    try:
        specs = static_specs(
            values["static_backends"],
            values["static_models"],
            values["static_model_labels"],
            values["static_model_types"],
            checked=values["static_backend_health_checks"],
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return specs if values["service_discovery"] == "static" else ()


def _check_engines(specs: Sequence[EngineSpec], emulated: Sequence[EmulatedGroup]) -> None:
    if not specs and not emulated:
        raise ConfigError(
            "no engines: give --engines URL ..., --static-backends, --engines-file FILE or "
            "--service-discovery k8s"
        )
    if not specs:
        return
    engine_id, times = Counter(spec.engine_id for spec in specs).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"engine {engine_id} is given {times} times")


def _check_trial(values: Mapping[str, Any]) -> None:
    on_trial = values["policy_mode"] != "active" or values["policy_canary"] is not None
    name = "routing-logic" if values["routing_logic"] not in DISAGGREGATED else "pd-policy"
    policy = values[name.replace("-", "_")]
    if on_trial and policy != "lodestar":
        raise ConfigError(
            f"--policy-mode and --policy-canary try out the learned policy: leave --{name} "
            f"at lodestar and give --policy-fallback {policy}"
        )


def _check_tls(values: Mapping[str, Any]) -> None:
    needs = {"tls_key": "tls_cert", "tls_client_ca": "tls_cert", "engine_key": "engine_cert"}
    for field, other in needs.items():
        if values[field] is not None and values[other] is None:
            names = (name.replace("_", "-") for name in (field, other))
            raise ConfigError("--{} needs --{}".format(*names))


def _check_session(values: Mapping[str, Any]) -> None:
    if values["session_key"] is None and values["routing_logic"] == "session":
        raise ConfigError("--routing-logic session needs --session-key")


def _without_effect(given: Mapping[str, Given]) -> list[str]:
    """A line for each setting that asks for what this router does not do."""
    said = []
    for setting in SETTINGS:
        if setting.does_nothing and setting.name in given:
            asked = _value(setting, given)
            if asked and asked != _value(setting, {}):
                said.append(f"--{setting.name} has no effect: {setting.does_nothing}")
    return said


def _api_keys(
    engines: Sequence[EngineSpec], api_key_env: str | None, environ: Mapping[str, str]
) -> dict[EngineId, str]:
    """The key of each engine that has one: its own, else the common one."""
    keys: dict[EngineId, str] = {}
    for spec in engines:
        variable = spec.api_key_env or api_key_env
        if variable is not None:
            whose = f"engine {spec.engine_id}: its key's variable"
            keys[spec.engine_id] = _api_key(variable, whose, environ)
    return keys


def _api_key(variable: str, what: str, environ: Mapping[str, str]) -> str:
    key = environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"{what} {variable} is not set")
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"environment variable {variable} holds no valid HTTP header value")
    return key


def _warnings(unknown_variables: Sequence[str]) -> tuple[str, ...]:
    known = [ENV_PREFIX + name.upper().replace("-", "_") for name in BY_NAME]
    return tuple(
        f"environment variable {variable} is no setting{did_you_mean(variable, known)}"
        for variable in unknown_variables
    )
