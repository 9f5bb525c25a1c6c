"""CPU time and memory of a process and all it started, from /proc.

Cost     one look costs about a millisecond of the caller's time.
Errors   processes and threads that end in between are left out.
Source   proc(5): the first number of schedstat is nanoseconds on a CPU.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """`pid` and its descendants that are alive."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # The command, in brackets, may hold spaces and brackets of its own.
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    return list(_walk(pid, children))


def _walk(pid: int, children: dict[int, list[int]]) -> Iterator[int]:
    yield pid
    for child in children.get(pid, []):
        yield from _walk(child, children)


def cpu_s(pid: int) -> float:
    """Seconds that the tree has spent on a CPU, threads that ended excepted."""
    total_ns = 0
    for process in tree(pid):
        with suppress(OSError):
            for task in (_PROC / str(process) / "task").iterdir():
                with suppress(OSError):
                    total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def resident_bytes(pid: int) -> int:
    """Resident memory, pages that processes of the tree share counted in each."""
    total = 0
    for process in tree(pid):
        with suppress(OSError):
            total += int((_PROC / str(process) / "statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE")
