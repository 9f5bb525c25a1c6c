"""From raw text or a YAML value to a checked one.

In       text (flags, environment) or a YAML scalar or list; "" stands for nothing.
Out      the value in the unit that Config holds.
Errors   ValueError saying what was expected and what was given.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from lodestar_router.config.model import ANY_MODEL

Convert = Callable[[object], Any]

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
_SHOWN_CHARS = 80  # of a wrong value; the line stays readable


def shown(raw: object) -> str:
    """A wrong value, on one line."""
    text = repr(raw)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The closest known name as a hint, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def text(raw: object) -> str:
    """Text that is not empty; YAML reads `4090` as a number, so whole numbers are text too."""
    if isinstance(raw, bool) or not isinstance(raw, str | int) or not str(raw).strip():
        raise ValueError(f"must be text, not {shown(raw)}")
    return str(raw).strip()


def whole(low: int, high: int) -> Convert:
    """A whole number within bounds."""

    def convert(raw: object) -> int:
        number = int(raw) if isinstance(raw, str) and re.fullmatch(r"\s*-?\d+\s*", raw) else raw
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {shown(raw)}")
        return number

    return convert


def mebibytes(low: int, high: int) -> Convert:
    """MiB, kept as bytes."""
    check = whole(low, high)
    return lambda raw: check(raw) * 1024 * 1024


def seconds(low: float, high: float) -> Convert:
    """Seconds within bounds."""

    def convert(raw: object) -> float:
        try:
            number = float(raw) if isinstance(raw, str | int | float) else None
        except (ValueError, OverflowError):
            number = None
        if number is None or isinstance(raw, bool) or not isfinite(number):
            raise ValueError(f"must be a number of seconds, not {shown(raw)}")
        if not low <= number <= high:
            raise ValueError(f"must be from {low:g} to {high:g} seconds, not {shown(raw)}")
        return number

    return convert


def factor(low: float, high: float) -> Convert:
    """A number within bounds, without a unit."""

    def convert(raw: object) -> float:
        try:
            number = float(raw) if isinstance(raw, str | int | float) else None
        except (ValueError, OverflowError):
            number = None
        if number is None or isinstance(raw, bool) or not low <= number <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}, not {shown(raw)}")
        return number

    return convert


def share(raw: object) -> float:
    """A share, 0..1, from `5%` or 0.05."""
    text_of = str(raw).strip()
    percent = text_of.endswith("%")
    try:
        number = float(text_of.removesuffix("%")) / (100.0 if percent else 1.0)
    except ValueError:
        number = -1.0
    if isinstance(raw, bool) or not 0.0 <= number <= 1.0:
        raise ValueError(f"must be a share such as 5% or 0.05, not {shown(raw)}")
    return number


def percent(low: float, high: float) -> Convert:
    """A percentage within bounds, kept as a ratio."""
    check = factor(low, high)
    return lambda raw: check(raw) / 100


def statuses(raw: object) -> frozenset[int]:
    """HTTP statuses of errors, from a list or text with commas."""
    check = whole(400, 599)
    items = raw if isinstance(raw, list) else [raw] if raw != "" else []
    return frozenset(check(status) for item in items for status in str(item).split(","))


def switch(raw: object) -> bool:
    """True or false."""
    word = str(raw).strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"must be true or false, not {shown(raw)}")
    return word in _TRUE


def switched_off(raw: object) -> bool:
    """The opposite of a switch, for `--no-...`."""
    return not switch(raw)


def one_of(what: str, names: Iterable[str]) -> Convert:
    """One of the names, in any case."""
    known = tuple(names)

    def convert(raw: object) -> str:
        name = str(raw).strip().lower()
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"{shown(raw)} is no {what}{hint}; choose from {', '.join(known)}")
        return name

    return convert


def optional(convert: Convert) -> Convert:
    """None for "", else what `convert` makes of it."""
    return lambda raw: None if raw == "" else convert(raw)


def blank_is(meant: str, convert: Convert) -> Convert:
    """`meant` for text without anything in it, else what `convert` makes of it."""
    return lambda raw: meant if isinstance(raw, str) and not raw.strip() else convert(raw)


def variable(raw: object) -> str:
    """The name of an environment variable; a value pasted by mistake is not repeated."""
    if not isinstance(raw, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", raw):
        raise ValueError("must be the name of an environment variable")
    return raw


def bind_host(raw: object) -> str:
    """A name or address to listen on."""
    host = text(raw).removeprefix("[").removesuffix("]")
    if re.search(r"[\s/]", host):
        raise ValueError(f"must be a host name or address, not {shown(raw)}")
    return host


def path_prefix(raw: object) -> str:
    """ "" or /PREFIX, without a slash at its end."""
    prefix = str(raw).strip().strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~!$&'()*+,;=:@/-]*", prefix) or "//" in prefix:
        raise ValueError(f"must be a path such as /vllm, not {shown(raw)}")
    return f"/{prefix}" if prefix else ""


def feature_gates(raw: object) -> tuple[str, ...]:
    """The gates that GATE=true,GATE=false opens; whatever else is there opens none."""
    pairs = (item.partition("=") for item in str(raw).split(","))
    return tuple(gate.strip() for gate, _, value in pairs if value.strip().lower() == "true")


def file_path(raw: object) -> Path:
    """A path; `~` is the home directory."""
    return Path(text(raw)).expanduser()


def directory(raw: object) -> Path:
    """A directory that exists or can be made later."""
    path = file_path(raw)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{shown(str(path))} is no directory")
    return path


def tokenizers(raw: object) -> dict[str, str]:
    """Model to tokenizer, from MODEL=PATH or PATH (all other models), or a YAML mapping."""
    if isinstance(raw, Mapping):
        return {text(model): text(source) for model, source in raw.items()}
    items = raw if isinstance(raw, list) else str(raw).split(",") if raw != "" else []
    sources: dict[str, str] = {}
    for item in items:
        model, equals, source = text(item).partition("=")
        model, source = (model.strip(), source.strip()) if equals else (ANY_MODEL, model)
        if not model or not source:
            raise ValueError(f"must be PATH_OR_ID or MODEL=PATH_OR_ID, not {shown(item)}")
        if model in sources:
            which = "all models" if model == ANY_MODEL else f"model {model!r}"
            raise ValueError(f"two tokenizers for {which}: {sources[model]!r} and {source!r}")
        sources[model] = source
    return sources
