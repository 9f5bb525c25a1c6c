"""Who may use the router: the keys of clients.

    team-a:sk-3f9c...            one client per line, in the variable between commas
    team-a:sk-77d0...            a second key of the same client: how keys are changed
    ops:sk-91ab... admin         may also use the router's control endpoints
    # a comment

In       a file's text, a variable's value.
Out      ClientKey each.
Errors   ValueError with the line's number, never with its text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lodestar_router.errors import ConfigError

_LINE = re.compile(r"([A-Za-z0-9_.-]{1,64}):([A-Za-z0-9._~+/=-]{8,512})( +admin)?")
_MOST = 1000  # names are metric labels


@dataclass(frozen=True, slots=True)
class ClientKey:
    """One key of one client."""

    name: str
    key: str = field(repr=False)
    admin: bool = False


def client_keys(
    path: Path | None, variable: str | None, environ: Mapping[str, str]
) -> tuple[ClientKey, ...]:
    """All keys of both sources; none if neither is named.

    Raises:
        ConfigError: a source that is named cannot be read or holds no key.
    """
    keys: list[ClientKey] = []
    if path is not None:
        try:
            content = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--client-keys-file: {path} cannot be read") from error
        keys += _keys_of(content, f"--client-keys-file: {path}", "line")
    if variable is not None:
        content = environ.get(variable, "").replace(",", "\n")
        keys += _keys_of(content, f"--client-keys-env: variable {variable}", "item")
    if len({key.key for key in keys}) < len(keys):
        raise ConfigError("a client key is given twice")
    if len(keys) > _MOST:
        raise ConfigError(f"{len(keys)} client keys; {_MOST} are the most")
    return tuple(keys)


def _keys_of(content: str, where: str, unit: str) -> list[ClientKey]:
    keys = []
    for number, line in enumerate(content.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(
                f"{where}: {unit} {number} is not NAME:KEY or NAME:KEY admin, with a key of at "
                "least 8 characters"
            )
        keys.append(ClientKey(match[1], match[2], bool(match[3])))
    if not keys:  # an open router is not what was meant
        raise ConfigError(f"{where} holds no key")
    return keys
