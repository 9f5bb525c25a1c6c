"""Background tasks that are named, referenced, and never fail silently.

asyncio keeps only weak references to tasks, so one that nobody holds may be
collected half-way; and an exception in one that nobody awaits is lost.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_logger = logging.getLogger(__name__)
_running: set[asyncio.Task[Any]] = set()


def spawn(
    coroutine: Coroutine[Any, Any, Any],
    *,
    name: str,
    loop: asyncio.AbstractEventLoop | None = None,
) -> "asyncio.Task[Any]":
    """Start `coroutine`; an escaped exception is logged.

    Args:
        loop: the running loop; it takes a system call to find out.
    """
    task = (loop or asyncio.get_running_loop()).create_task(coroutine, name=name)
    _running.add(task)
    task.add_done_callback(_reap)
    return task


def _reap(task: "asyncio.Task[Any]") -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _logger.error("task %s failed", task.get_name(), exc_info=error)


async def cancel(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancel the tasks and wait until they have ended."""
    pending = [task for task in tasks if task is not None and not task.done()]
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
