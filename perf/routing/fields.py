"""Reading a mapping that a person wrote: each field once, every mistake in one line.

In       what a YAML file gave, and where it stands, for messages.
Out      checked values.
Errors   ConfigError that names the place, the field and what would be right.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf, isfinite
from typing import Any, TypeVar

from lodestar_router.errors import ConfigError

T = TypeVar("T")
_REQUIRED: Any = object()


class Fields:
    """The fields of one mapping; `close` refuses those that nobody asked for."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping, not {_shown(value)}")
        self._values: dict[str, Any] = {str(key): entry for key, entry in value.items()}
        self.where = where
        self._asked: list[str] = []

    def has(self, *names: str) -> bool:
        """Whether one of the names is given and not null."""
        return any(self._values.get(name) is not None for name in names)

    def raw(self, name: str, *aliases: str, default: Any = _REQUIRED) -> Any:
        """The value as it is; null stands for the default."""
        self._asked.append(name)
        for known in (name, *aliases):
            value = self._values.pop(known, None)
            if value is not None:
                return value
        if default is _REQUIRED:
            raise ConfigError(f"{self.where}: '{name}' is missing")
        return default

    def text(self, name: str, *aliases: str, default: Any = _REQUIRED) -> str:
        """A string that is not empty."""
        value = self.raw(name, *aliases, default=default)
        if not isinstance(value, str) or not value:
            raise self.wrong(name, value, "a text")
        return value

    def flag(self, name: str, default: Any = _REQUIRED) -> bool:
        """True or false."""
        value = self.raw(name, default=default)
        if not isinstance(value, bool):
            raise self.wrong(name, value, "true or false")
        return value

    def number(
        self,
        name: str,
        *aliases: str,
        default: Any = _REQUIRED,
        above: float = -inf,
        low: float = -inf,
        high: float = inf,
    ) -> float:
        """A finite number, above `above` and within [low, high]."""
        value = self.raw(name, *aliases, default=default)
        wanted = "a number" + _range(above, low, high)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self.wrong(name, value, wanted)
        if not (value > above and low <= value <= high):
            raise self.wrong(name, value, wanted)
        return float(value)

    def count(self, name: str, *aliases: str, default: Any = _REQUIRED, low: int = 1) -> int:
        """A whole number of `low` at least."""
        value = self.raw(name, *aliases, default=default)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise self.wrong(name, value, f"a whole number of {low} at least")
        return value

    def numbers(
        self, name: str, *aliases: str, default: Any = _REQUIRED, low: float, high: float = inf
    ) -> tuple[float, ...]:
        """One number or a list of them, each within [low, high]."""
        value = self.raw(name, *aliases, default=default)
        entries = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        wanted = "a number or a list of numbers" + _range(-inf, low, high)
        if not entries:
            raise self.wrong(name, value, wanted)
        for entry in entries:
            good = isinstance(entry, int | float) and not isinstance(entry, bool)
            if not good or not low <= entry <= high:
                raise self.wrong(name, value, wanted)
        return tuple(float(entry) for entry in entries)

    def spread(self, name: str, *aliases: str, default: Any = _REQUIRED) -> tuple[int, int]:
        """A count, or [lowest, highest]."""
        values = self.numbers(name, *aliases, default=default, low=1)
        if len(values) > 2 or values[0] > values[-1] or any(v != int(v) for v in values):
            raise self.wrong(name, list(values), "a whole number or [lowest, highest]")
        return int(values[0]), int(values[-1])

    def entries(
        self, name: str, read: Callable[[object, str], T], default: Any = _REQUIRED
    ) -> "list[T]":
        """A list, each entry through `read(value, where)`."""
        value = self.raw(name, default=default)
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise self.wrong(name, value, "a list")
        return [read(entry, f"{self.where}: {name}[{i}]") for i, entry in enumerate(value)]

    def close(self, known: Iterable[str] = ()) -> None:
        """Refuse what is left; `known` names fields that were not asked for, for the message."""
        if self._values:
            strange = ", ".join(f"'{name}'" for name in self._values)
            right = ", ".join(dict.fromkeys([*self._asked, *known]))
            raise ConfigError(f"{self.where}: unknown {strange}; known: {right}")

    def wrong(self, name: str, value: object, wanted: str) -> ConfigError:
        """The error for a value that is not what it should be."""
        return ConfigError(f"{self.where}: '{name}' is {_shown(value)}, not {wanted}")


def _range(above: float, low: float, high: float) -> str:
    if above > -inf:
        return f" above {above:g}"
    if low > -inf and high < inf:
        return f" of {low:g} to {high:g}"
    return f" of {low:g} at least" if low > -inf else ""


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
