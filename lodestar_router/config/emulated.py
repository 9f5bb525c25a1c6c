"""Emulated engines as the operator names them, among the URLs of others.

    emulated:4                       four of the default kind
    emulated:2xA30,2xV100            a mixed fleet
    emulated:2xA30@llama-3-8b        with a model of its own
    emulated:2xA30:prefill,4:decode  with roles, which are their labels `model`

What stands after `emulated:` goes on, over spaces and commas, until the next URL.

In       the value of --engines or of `engines:` in a file.
Out      EmulatedGroup each, and what is left: real engines.
Errors   ValueError. Whether a GPU kind and model exist is the emulator's to say.
"""

import re

from lodestar_router.config.converters import shown
from lodestar_router.config.model import EMULATED_GPU, EMULATED_MODEL, EmulatedGroup

_MOST_ENGINES = 1000  # more is a slip of the finger
_PREFIX = "emulated:"
_GROUP = re.compile(
    r"(?:(\d+)(?:x|(?=[@:]|$)))?([A-Za-z][\w.-]*)?(?:@([\w./-]+))?(?::(prefill|decode))?"
)


def split_emulated(raw: object) -> tuple[object, tuple[EmulatedGroup, ...]]:
    """(what names real engines, in the form it came in; the emulated ones)."""
    groups: list[EmulatedGroup] = []
    rest: object = raw
    if isinstance(raw, str):
        rest = _taken_from_line(raw, groups)
    elif isinstance(raw, list):
        rest = [
            _taken_from_line(entry, groups) if isinstance(entry, str) else entry for entry in raw
        ]
    if sum(group.count for group in groups) > _MOST_ENGINES:
        raise ValueError(f"more than {_MOST_ENGINES} emulated engines")
    return rest, tuple(groups)


def _taken_from_line(line: str, groups: list[EmulatedGroup]) -> str:
    others: list[str] = []
    emulated = False
    for word in re.split(r"[\s,]+", line):
        if word.startswith(_PREFIX):
            emulated = True
            word = word.removeprefix(_PREFIX)
            if not word:
                raise ValueError(f"{shown(line)}: nothing after emulated:")
        elif "://" in word:
            emulated = False
        if emulated and word:
            groups.append(_group(word))
        elif word:
            others.append(word)
    return " ".join(others)


def _group(word: str) -> EmulatedGroup:
    match = _GROUP.fullmatch(word)
    count = 1 if match is None or match[1] is None else int(match[1])
    if match is None or count < 1:
        raise ValueError(
            f"{shown(word)} is no group of emulated engines; as 4, 2xA30, 2xA30@llama-3-8b or "
            "4:prefill"
        )
    return EmulatedGroup(
        count=count,
        gpu=match[2] or EMULATED_GPU,
        model=match[3] or EMULATED_MODEL,
        role=match[4],
    )
