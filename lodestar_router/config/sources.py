"""What the command line, the environment and the YAML files each give, unchecked.

In       argv, environ, paths.
Out      setting name -> Given; a name is missing where nothing was said.
Errors   ConfigError for unknown flags and keys, unreadable files and bad YAML.
         `-h` and `--version` print and leave through SystemExit.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from lodestar_router import __version__
from lodestar_router.config.abbreviations import expanded
from lodestar_router.config.converters import did_you_mean
from lodestar_router.config.setting import Setting
from lodestar_router.config.settings import BY_NAME, SETTINGS
from lodestar_router.errors import ConfigError

ENV_PREFIX = "LODESTAR_ROUTER_"

_EPILOG = f"""\
Each setting can also stand in the environment (--port: {ENV_PREFIX}PORT) or in the
file given by --config (port: 8001). A flag wins over the environment, that over the
file, that over the default.
"""

# Kubernetes tells each container of a service `lodestar-router` its address in variables
# with our prefix, LODESTAR_ROUTER_PORT=tcp://10.0.0.1:8001 among them.
_SERVICE_LINK_NAME = re.compile(r".*_SERVICE_(HOST|PORT(_.*)?)|.*_PORT_\d+_(TCP|UDP|SCTP)(_.*)?")
_SERVICE_LINK = re.compile(r".*_PORT=(tcp|udp|sctp)://.*")


@dataclass(frozen=True, slots=True)
class Given:
    """A raw value and where it stood, for the message if it is wrong."""

    where: str
    raw: object


class _Parser(argparse.ArgumentParser):
    """argparse that raises where it would print usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(" ".join(message.removeprefix("argument ").split()))


def from_flags(argv: Sequence[str]) -> dict[str, Given]:
    """What the command line gives."""
    parsed, unknown = _parser().parse_known_args(expanded(argv, BY_NAME))
    if unknown:
        raise ConfigError(_explain_unknown(unknown[0]))
    return {
        name: Given(f"--{name}", " ".join(raw) if name == "engines" else raw)
        for name in BY_NAME
        if (raw := getattr(parsed, name.replace("-", "_"))) is not None
    }


def _explain_unknown(argument: str) -> str:
    flag = argument.partition("=")[0]
    if not flag.startswith("-"):
        return "an argument belongs to no flag; engines are given as --engines URL ..."
    return f"unknown flag {flag}{did_you_mean(flag, [f'--{name}' for name in BY_NAME])}"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lodestar-router",
        usage="%(prog)s --engines URL [URL ...] [options]",
        description="Routes OpenAI API requests to vLLM engines.",
        epilog=_EPILOG,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    groups: dict[str, Any] = {}
    for setting in SETTINGS:
        if setting.group not in groups:
            groups[setting.group] = parser.add_argument_group(setting.group)
        _add(groups[setting.group], setting)
    return parser


def _add(group: Any, setting: Setting) -> None:
    help_text = f"{setting.help} (default: {setting.default or 'none'})".replace("%", "%%")
    if setting.metavar is None:
        # A value is allowed, so that a flag can also undo what a file says.
        switch: dict[str, Any] = {"nargs": "?", "const": "true", "metavar": "true|false"}
        group.add_argument(f"--{setting.name}", help=help_text, **switch)
    elif setting.many:
        many: dict[str, Any] = {"nargs": "+", "action": "extend", "metavar": setting.metavar}
        group.add_argument(f"--{setting.name}", help=help_text, **many)
    else:
        group.add_argument(f"--{setting.name}", help=help_text, metavar=setting.metavar)


def from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Given], list[str]]:
    """What the environment gives, and the variables with our prefix that mean nothing.

    An empty variable counts as not set. An unknown one is no error: anything
    may bear our prefix, an engine's key for instance.
    """
    given: dict[str, Given] = {}
    unknown: list[str] = []
    for variable, raw in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX) or not raw.strip():
            continue
        if _is_service_link(variable, raw):
            continue
        name = variable.removeprefix(ENV_PREFIX).lower().replace("_", "-")
        if name in BY_NAME:
            given[name] = Given(variable, raw)
        else:
            unknown.append(variable)
    return given, unknown


def _is_service_link(variable: str, raw: str) -> bool:
    return bool(
        _SERVICE_LINK_NAME.fullmatch(variable) or _SERVICE_LINK.fullmatch(f"{variable}={raw}")
    )


def from_file(path: Path) -> dict[str, Given]:
    """What a config file gives; an empty value counts as not set."""
    given: dict[str, Given] = {}
    for key, raw in read_yaml(path).items():
        name = str(key).replace("_", "-")
        if name == "config":
            raise ConfigError(f"{path}: a config file cannot name another one")
        if name not in BY_NAME:
            raise ConfigError(f"{path}: unknown setting {key!r}{did_you_mean(name, BY_NAME)}")
        if name in given:
            raise ConfigError(f"{path}: {name} is given twice")
        if raw is not None:
            given[name] = Given(f"{path}: {key}", raw)
    return given


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML says it must be an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return node


def read_yaml(path: Path) -> dict[object, Any]:
    """The mapping that a YAML file holds; empty for an empty file."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}:{line} {error.problem or 'bad YAML'}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: bad YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of names to values")
    return content
