"""Cells from a YAML file: a list of cells, or `defaults` and `cells`.

    defaults: {duration_s: 300, warmup_s: 60}
    cells:
      - name: a30-sharing-50
        engines: [{gpu: A30, count: 8}]
        workload: {kind: sharing, share: 0.5}
        load: 0.9

A cell's field replaces the default's as a whole.

Errors   ConfigError, one line that names file, cell and field.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from lodestar_router.emulator.build import DEFAULT_MODEL
from lodestar_router.emulator.config import SchedulerKind
from lodestar_router.errors import ConfigError
from perf.routing.cells import Cell, Delays, EngineGroup, Event, Restart, RouterRestart, Slow
from perf.routing.fields import Fields
from perf.routing.profile_changes import CHANGES
from perf.routing.workloads.parsing import parse_workload

_CHANGES: Final = ("scale_to", "slow", "workload", "requests_per_s", "load", "restart")
_SCHEDULERS = {
    **{str(kind): kind for kind in SchedulerKind},
    "v1": SchedulerKind.CHUNKED,
    "v0": SchedulerKind.PREFILL_FIRST,
}


def read_cells(path: Path, traces: Path | None = None) -> list[Cell]:
    """All cells of a file, checked."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    directories = (*([traces] if traces else []), path.parent, Path())
    return parse_cells(document, str(path), directories)


def parse_cells(document: object, where: str, directories: tuple[Path, ...]) -> list[Cell]:
    """All cells of a document; names are unique."""
    defaults: Mapping[str, Any] = {}
    entries = document
    if isinstance(document, Mapping) and "cells" in document:
        top = Fields(document, where)
        defaults = top.raw("defaults", default={})
        Fields(defaults, f"{where}: defaults")
        entries = top.raw("cells")
        top.close()
    elif isinstance(document, Mapping):
        entries = [document]
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{where}: expected a list of cells")
    cells = [_cell(entry, defaults, where, directories) for entry in entries]
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: there are two cells '{name}'")
    return cells


def _cell(
    entry: object, defaults: Mapping[str, Any], where: str, directories: tuple[Path, ...]
) -> Cell:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: a cell must be a mapping, not {entry!r}")
    merged = {**defaults, **entry}
    if {"requests_per_s", "load"} & entry.keys():  # a cell's own choice of the two
        merged = {k: v for k, v in merged.items() if k not in ("requests_per_s", "load")} | {
            k: entry[k] for k in ("requests_per_s", "load") if k in entry
        }
    name = Fields(merged, f"{where}: cell").text("name")
    fields = Fields(merged, f"{where}: cell '{name}'")
    fields.text("name")
    groups = fields.entries("engines", _group)
    if not groups:
        raise ConfigError(f"{fields.where}: 'engines' is empty")
    place = f"{fields.where}: workload"
    cell = Cell(
        name=name,
        engines=tuple(groups),
        workload=parse_workload(fields.raw("workload"), place, directories),
        requests_per_s=_optional(fields, "requests_per_s"),
        load=_optional(fields, "load"),
        duration_s=fields.number("duration_s", default=300.0, above=0.0),
        warmup_s=fields.number("warmup_s", default=60.0, low=0.0),
        events=tuple(
            sorted(
                fields.entries(
                    "events", lambda value, at: _event(value, at, groups, directories), default=[]
                ),
                key=lambda event: event.at_s,
            )
        ),
        delays=_delays(fields.raw("delays", default={}), f"{fields.where}: delays"),
    )
    fields.close()
    return cell


def _group(value: object, where: str) -> EngineGroup:
    fields = Fields(value, where)
    scheduler = fields.raw("scheduler", default=None)
    if scheduler is not None and scheduler not in _SCHEDULERS:
        raise fields.wrong("scheduler", scheduler, f"one of {', '.join(_SCHEDULERS)}")
    group = EngineGroup(
        gpu=fields.text("gpu"),
        count=fields.count("count", default=1),
        model=fields.text("model", default=DEFAULT_MODEL),
        prefix_caching=_optional_flag(fields, "prefix_caching"),
        scheduler=None if scheduler is None else _SCHEDULERS[scheduler],
        max_num_batched_tokens=_optional_count(fields, "max_num_batched_tokens"),
        max_num_seqs=_optional_count(fields, "max_num_seqs"),
        max_model_len=_optional_count(fields, "max_model_len"),
        kv_blocks=_optional_count(fields, "kv_blocks", low=2),
        eager=fields.flag("eager", default=False),
        slowdown=fields.number("slowdown", default=1.0, above=0.0),
        profile=_profile(fields.raw("profile", default={}), f"{where}: profile"),
    )
    fields.close()
    try:
        group.build(kv_events=False)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return group


def _profile(value: object, where: str) -> tuple[tuple[str, float], ...]:
    fields = Fields(value, where)
    given = [name for name in CHANGES if fields.has(name)]
    changes = tuple((name, fields.number(name, low=0.0)) for name in given)
    fields.close(CHANGES)
    return changes


def _event(
    value: object, where: str, groups: list[EngineGroup], directories: tuple[Path, ...]
) -> Event:
    fields = Fields(value, where)
    at_s = fields.number("at_s", low=0.0)
    if not fields.has(*_CHANGES):
        raise ConfigError(f"{where}: one of {', '.join(_CHANGES)} is missing")
    workload = fields.raw("workload", default=None)
    slow = fields.raw("slow", default=None)
    restart = _restart(fields)
    changes: dict[str, Any] = {
        "at_s": at_s,
        "scale_to": _optional_count(fields, "scale_to"),
        "slow": None if slow is None else _slow(slow, f"{where}: slow", groups),
        "workload": None
        if workload is None
        else parse_workload(workload, f"{where}: workload", directories),
        "requests_per_s": _optional(fields, "requests_per_s"),
        "load": _optional(fields, "load"),
    }
    fields.close()
    return Event(**changes) if restart is None else RouterRestart(restart=restart, **changes)


def _restart(fields: Fields) -> Restart | None:
    """`true` is a restart as it should be: with what the router before saved when it ended."""
    value = fields.raw("restart", default=None)
    if value is None:
        return None
    if value is True:
        return Restart.SAVED
    if value not in list(Restart):
        raise fields.wrong("restart", value, f"true or one of {', '.join(Restart)}")
    return Restart(value)


def _slow(value: object, where: str, groups: list[EngineGroup]) -> Slow:
    """`3` slows engine 0; {engine: 2, factor: 3} another, by its number or its id."""
    if isinstance(value, int | float):
        value = {"factor": value}
    fields = Fields(value, where)
    engine = fields.raw("engine", "engine_id", "index", default=0)
    ids = engine_ids([group.gpu for group in groups for _ in range(group.count)])
    if engine in ids:
        engine = ids.index(engine)
    if isinstance(engine, bool) or not isinstance(engine, int) or engine < 0:
        raise fields.wrong("engine", engine, f"a number or one of {', '.join(ids)}")
    slow = Slow(engine=engine, factor=fields.number("factor", "slowdown", above=0.0))
    fields.close()
    return slow


def _delays(value: object, where: str) -> Delays:
    fields = Fields(value, where)
    plain = Delays()
    period = "load_period_s"
    delays = Delays(
        kv_events=fields.flag("kv_events", default=plain.kv_events),
        load_period_s=fields.number(period, above=0.0)
        if fields.has(period)
        else fields.raw(period, default=None),
        kv_event_loss=fields.number("kv_event_loss", default=0.0, low=0.0, high=1.0),
        **{
            name: fields.number(name, default=getattr(plain, name), low=0.0)
            for name in (
                "tokenize_s", "network_s", "engine_overhead_s", "kv_event_delay_s",
                "load_delay_s", "training_s",
            )
        },
    )  # fmt: skip
    fields.close()
    return delays


def engine_ids(gpus: list[str]) -> list[str]:
    """One id per engine: its GPU kind and its number in the fleet."""
    return [f"{gpu}-{number}" for number, gpu in enumerate(gpus)]


def _optional(fields: Fields, name: str) -> float | None:
    if fields.has(name):
        return fields.number(name, above=0.0)
    fields.raw(name, default=None)
    return None


def _optional_count(fields: Fields, name: str, low: int = 1) -> int | None:
    if fields.has(name):
        return fields.count(name, low=low)
    fields.raw(name, default=None)
    return None


def _optional_flag(fields: Fields, name: str) -> bool | None:
    if fields.has(name):
        return fields.flag(name)
    fields.raw(name, default=None)
    return None
