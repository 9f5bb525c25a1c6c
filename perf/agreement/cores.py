"""Gives an engine's computing a core of its own, as a GPU would be.

    the worker of vLLM                          one core
    its API server, its core process, the
    router, the client, this process            the others

Without it they take turns on the core that computes: steps then last longer under
load than they do when they are calibrated, which no model of an engine contains.

In       the cores this process may use; the session of a running engine.
Out      affinities of processes and threads; this process's is put back afterwards.
Errors   LookupError when the session has no such process.

Linux only. With a single core nothing is changed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PROC = Path("/proc")


@contextmanager
def one_core_left_free() -> Iterator[int | None]:
    """This process and what it starts keep off one core, which is yielded."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        yield None
        return
    core = min(allowed)
    os.sched_setaffinity(0, allowed - {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, allowed)


def move(session: int, name: str, core: int) -> None:
    """All threads of a session's processes that are called `name...`, onto one core."""
    moved = 0
    for process in _PROC.glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if _is(process, session, name):
                for thread in (process / "task").iterdir():
                    os.sched_setaffinity(int(thread.name), {core})
                    moved += 1
    if not moved:
        raise LookupError(f"session {session} has no process '{name}'")


def _is(process: Path, session: int, name: str) -> bool:
    return os.getsid(int(process.name)) == session and (
        (process / "cmdline").read_text(errors="replace").startswith(name)
    )
