"""What of newly read settings a running router can take over, and what must wait.

In       the settings in force, those just read.
Out      the settings to have from now on; the names of the changes that need a restart.
Errors   none.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from lodestar_router.config.dynamic import LIVE
from lodestar_router.config.model import Config
from lodestar_router.config.settings import SETTINGS

_DERIVED = ("engines", "api_keys", "client_keys")  # from several settings
_FIELDS = {setting.name: setting.field for setting in SETTINGS}
_OF_CONFIG = {field.name for field in fields(Config)}
_LIVE_FIELDS = tuple(
    field for name, field in _FIELDS.items() if name in LIVE and field in _OF_CONFIG
)


def taken_over(running: Config, read: Config) -> tuple[Config, tuple[str, ...]]:
    """(the settings to have, what of the others differs)."""
    changes = {name: getattr(read, name) for name in dict.fromkeys((*_LIVE_FIELDS, *_DERIVED))}
    waiting = [
        name
        for name, field in _FIELDS.items()
        if name not in LIVE and getattr(running, field, None) != getattr(read, field, None)
    ]
    if running.emulated != read.emulated:
        waiting.append("emulated engines")
    return replace(running, **changes), tuple(waiting)


def changed(before: Config, after: Config) -> tuple[str, ...]:
    """The live settings that differ."""
    return tuple(
        name
        for name, field in _FIELDS.items()
        if name in LIVE and getattr(before, field, None) != getattr(after, field, None)
    )


def shown_live(config: Config) -> dict[str, Any]:
    """The live settings in the form of the file that changes them, as /health tells them."""
    return {
        name.replace("-", "_"): _as_in_file(getattr(config, field))
        for name, field in _FIELDS.items()
        if name in LIVE and field in _LIVE_FIELDS and field != "engines"
    }


def _as_in_file(value: Any) -> Any:
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{content}" for key, content in value.items())
    return value
