"""A workload from a cell file.

    workload: {kind: sharing, share: [0.1, 0.3]}        or  {sharing: {share: 0.5}}
    workload: chat                                      with all defaults

A relative trace path is looked for under `traces`, the cell file's directory and
the current one, in that order; $NAME stands for an environment variable.

Errors   ConfigError, one line.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lodestar_router.errors import ConfigError
from perf.routing.fields import Fields
from perf.routing.workloads.azure import Azure
from perf.routing.workloads.base import Workload
from perf.routing.workloads.chat import Chat
from perf.routing.workloads.mooncake import BLOCK_TOKENS, Mooncake
from perf.routing.workloads.sharing import Sharing

KINDS: Final = ("mooncake", "sharing", "azure", "chat")


def parse_workload(value: object, where: str, directories: tuple[Path, ...]) -> Workload:
    """The workload that `value` describes."""
    kind, parameters = _kind(value, where)
    fields = Fields(parameters, f"{where} ({kind})")
    workload: Workload
    if kind == "mooncake":
        workload = _mooncake(fields, directories)
    elif kind == "sharing":
        workload = _sharing(fields)
    elif kind == "azure":
        workload = _azure(fields, directories)
    else:
        workload = _chat(fields)
    fields.close()
    return workload


def _kind(value: object, where: str) -> tuple[str, object]:
    """(kind, its parameters)."""
    kind: object = value
    parameters: object = {}
    if isinstance(value, Mapping):
        named = [name for name in ("kind", "type", "name") if name in value]
        if named:
            kind = value[named[0]]
            parameters = {name: entry for name, entry in value.items() if name != named[0]}
        elif len(value) == 1:
            kind, parameters = next(iter(value.items()))
            parameters = {} if parameters is None else parameters
        else:
            raise ConfigError(f"{where}: 'kind' is missing; one of {', '.join(KINDS)}")
    if kind not in KINDS:
        raise ConfigError(f"{where}: unknown kind {kind!r}; one of {', '.join(KINDS)}")
    return str(kind), parameters


def _mooncake(fields: Fields, directories: tuple[Path, ...]) -> Mooncake:
    return Mooncake(
        trace=_trace(fields, directories),
        tokens_per_block=fields.count("tokens_per_block", default=BLOCK_TOKENS),
        max_prompt_tokens=_optional_count(fields, "max_prompt_tokens"),
        output_scale=fields.number("output_scale", default=1.0, above=0.0),
    )


def _azure(fields: Fields, directories: tuple[Path, ...]) -> Azure:
    return Azure(
        trace=_trace(fields, directories),
        share=fields.number("share", default=0.5, low=0.0, high=1.0),
        group=fields.number("group", "group_size", default=10.0, low=1.0),
        max_prompt_tokens=_optional_count(fields, "max_prompt_tokens"),
    )


def _sharing(fields: Fields) -> Sharing:
    plain = Sharing()
    distance = fields.raw("reuse_distance", default=plain.reuse_distance)
    if distance == "shuffled":
        distance = None
    elif isinstance(distance, bool) or not isinstance(distance, int | float) or distance < 1:
        raise fields.wrong("reuse_distance", distance, "a number of 1 at least, or 'shuffled'")
    output = fields.numbers("output_tokens", default=plain.output_tokens, low=0)
    if len(output) > 2 or output[0] < 1:
        raise fields.wrong("output_tokens", list(output), "a mean, or [mean, deviation]")
    return Sharing(
        prompt_tokens=fields.numbers(
            "prompt_tokens", "prompt_lengths", "prompt_length", default=plain.prompt_tokens, low=1
        ),
        share=fields.numbers("share", "shares", default=plain.share, low=0.0, high=1.0),
        requests_per_prefix=fields.spread("requests_per_prefix", default=plain.requests_per_prefix),
        reuse_distance=None if distance is None else float(distance),
        output_tokens=(output[0], output[1] if len(output) == 2 else 0.2 * output[0]),
        prefixes_per_class=fields.count("prefixes_per_class", default=plain.prefixes_per_class),
    )


def _chat(fields: Fields) -> Chat:
    plain = Chat()
    return Chat(
        turns=fields.spread("turns", default=plain.turns),
        system_prompts=fields.count("system_prompts", default=plain.system_prompts),
        system_tokens=fields.count("system_tokens", default=plain.system_tokens),
        message_tokens=fields.number("message_tokens", default=plain.message_tokens, low=1.0),
        output_tokens=fields.number("output_tokens", default=plain.output_tokens, low=1.0),
        think_s=fields.number("think_s", "think_time_s", default=plain.think_s, low=0.0),
    )


def _optional_count(fields: Fields, name: str) -> int | None:
    present = fields.has(name)
    return fields.count(name) if present else fields.raw(name, default=None)


def _trace(fields: Fields, directories: tuple[Path, ...]) -> Path:
    given = fields.text("trace", "trace_path", "path")
    path = Path(os.path.expandvars(given)).expanduser()
    places = [path] if path.is_absolute() else [folder / path for folder in directories]
    for place in places:
        if place.is_file():
            return place.resolve()
    raise ConfigError(
        f"{fields.where}: there is no trace {given}; give its directory with --traces"
    )
