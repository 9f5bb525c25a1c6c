"""From all sources to one Config: precedence, and the checks across settings.

In       argv without the program's name, environ.
Out      Config.
Errors   ConfigError, one line.
"""

from collections import ChainMap, Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lodestar_router.config.converters import did_you_mean
from lodestar_router.config.engine_specs import Engines, engines
from lodestar_router.config.model import Config, EmulatedGroup
from lodestar_router.config.settings import BY_NAME, SETTINGS, Setting
from lodestar_router.config.sources import (
    ENV_PREFIX,
    Given,
    from_environment,
    from_file,
    from_flags,
    read_yaml,
)
from lodestar_router.core.types import EngineId, EngineSpec
from lodestar_router.errors import ConfigError


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """The settings in force: flag over environment over config file over default.

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

    values: dict[str, Any] = {setting.field: _value(setting, given) for setting in SETTINGS}
    del values["config"]
    line, file = values.pop("engines"), _engines_of_file(values.pop("engines_file"))
    specs, emulated = (*line.specs, *file.specs), (*line.emulated, *file.emulated)
    _check_engines(specs, emulated)
    _check_trial(values)
    api_key_env: str | None = values["api_key_env"]
    used = {api_key_env, *(spec.api_key_env for spec in specs)}
    return Config(
        engines=specs,
        emulated=emulated,
        api_keys=_api_keys(specs, api_key_env, environ),
        warnings=_warnings([name for name in unknown_variables if name not in used]),
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


def _check_engines(specs: Sequence[EngineSpec], emulated: Sequence[EmulatedGroup]) -> None:
    if not specs and not emulated:
        raise ConfigError("no engines: give --engines URL ... or --engines-file FILE")
    if not specs:
        return
    engine_id, times = Counter(spec.engine_id for spec in specs).most_common(1)[0]
    if times > 1:
        raise ConfigError(f"engine {engine_id} is given {times} times")


def _check_trial(values: Mapping[str, Any]) -> None:
    on_trial = values["policy_mode"] != "active" or values["policy_canary"] is not None
    if on_trial and values["routing_logic"] != "lodestar":
        raise ConfigError(
            "--policy-mode and --policy-canary try out the learned policy: leave --routing-logic "
            f"at lodestar and give --policy-fallback {values['routing_logic']}"
        )


def _api_keys(
    engines: Sequence[EngineSpec], api_key_env: str | None, environ: Mapping[str, str]
) -> dict[EngineId, str]:
    """The key of each engine that has one: its own, else the common one."""
    keys: dict[EngineId, str] = {}
    for spec in engines:
        variable = spec.api_key_env or api_key_env
        if variable is None:
            continue
        key = environ.get(variable, "").strip()
        if not key:
            raise ConfigError(f"engine {spec.engine_id}: its key's variable {variable} is not set")
        if not key.isascii() or not key.isprintable():
            raise ConfigError(f"environment variable {variable} holds no valid HTTP header value")
        keys[spec.engine_id] = key
    return keys


def _warnings(unknown_variables: Sequence[str]) -> tuple[str, ...]:
    known = [ENV_PREFIX + name.upper().replace("-", "_") for name in BY_NAME]
    return tuple(
        f"environment variable {variable} is no setting{did_you_mean(variable, known)}"
        for variable in unknown_variables
    )
