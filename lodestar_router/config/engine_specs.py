"""Engines as the operator names them: URLs on a line, or entries of a YAML list.

Emulated ones may stand among them, see emulated.py.

    engines:
      - url: http://10.0.0.1:8000
        gpu: A30                                # engines of one kind share rates
        model: llama                            # expected served model
        kv_events: tcp://10.0.0.1:5557          # one per data-parallel rank, or a list
        kv_replay: tcp://10.0.0.1:5558
        scheduler_stats: tcp://10.0.0.1:5559
        api_key_env: ENGINE_KEY
        labels: {zone: a}

In       text of URLs, or a YAML list of URLs and entries.
Out      EngineSpec each. Everything but the url may be left out.
Errors   ValueError saying which engine, counted from 1.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lodestar_router.config.addresses import engine_id_of, parse_url, parse_zmq_endpoint
from lodestar_router.config.converters import Convert, did_you_mean, shown, text, variable
from lodestar_router.config.emulated import split_emulated
from lodestar_router.config.model import EmulatedGroup
from lodestar_router.core.types import EngineSpec


class Engines(NamedTuple):
    """All that one list of engines names."""

    specs: tuple[EngineSpec, ...]
    emulated: tuple[EmulatedGroup, ...]


def engines(raw: object) -> Engines:
    """Real engines as `engine_specs` reads them, and emulated ones among them."""
    rest, emulated = split_emulated(raw)
    return Engines(engine_specs(rest), emulated)


def engine_specs(raw: object) -> tuple[EngineSpec, ...]:
    """Engines from text (spaces or commas between URLs) or a YAML list."""
    if isinstance(raw, str):
        return tuple(_plain(url) for url in _urls(raw))
    if not isinstance(raw, list):
        raise ValueError(f"must be a list of engines, not {shown(raw)}")
    specs: list[EngineSpec] = []
    for number, entry in enumerate(raw, start=1):
        if isinstance(entry, str):
            specs.extend(_plain(url) for url in _urls(entry))
        else:
            specs.append(_numbered(number, entry))
    return tuple(specs)


def _urls(line: str) -> list[str]:
    return [url for url in re.split(r"[\s,]+", line) if url]


def _plain(url: str) -> EngineSpec:
    parsed = parse_url(url)
    return EngineSpec(engine_id=engine_id_of(parsed), url=parsed)


def _numbered(number: int, entry: object) -> EngineSpec:
    try:
        return _from_entry(entry)
    except ValueError as error:
        raise ValueError(f"engine {number}: {error}") from error


def _from_entry(entry: object) -> EngineSpec:
    if not isinstance(entry, Mapping):
        raise ValueError(f"must be a URL or a mapping with `url`, not {shown(entry)}")
    values: dict[str, Any] = {}
    for key, raw in entry.items():
        name = str(key).replace("-", "_")
        if name not in _FIELDS:
            raise ValueError(f"unknown key {shown(key)}{did_you_mean(name, _FIELDS)}")
        if name in values:
            raise ValueError(f"{name} is given twice")
        if raw is not None:
            values[name] = _field(name, raw)
    if "url" not in values:
        raise ValueError("has no url")
    spec = EngineSpec(engine_id=engine_id_of(values["url"]), **values)
    if spec.kv_replay and len(spec.kv_replay) != len(spec.kv_events):
        raise ValueError("kv_replay must list as many endpoints as kv_events, in the same order")
    return spec


def _field(name: str, raw: object) -> Any:
    try:
        return _FIELDS[name](raw)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _endpoint(raw: object) -> str:
    return parse_zmq_endpoint(text(raw))


def _endpoints(raw: object) -> tuple[str, ...]:
    return tuple(_endpoint(one) for one in (raw if isinstance(raw, list) else [raw]))


def _labels(raw: object) -> dict[str, str]:
    if not isinstance(raw, Mapping):
        raise ValueError(f"must be a mapping of names to text, not {shown(raw)}")
    return {text(name): text(value) for name, value in raw.items()}


_FIELDS: Mapping[str, Convert] = {
    "url": lambda raw: parse_url(text(raw)),
    "gpu": text,
    "model": text,
    "kv_events": _endpoints,
    "kv_replay": _endpoints,
    "scheduler_stats": _endpoints,
    "api_key_env": variable,
    "labels": _labels,
}
