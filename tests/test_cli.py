"""What the command does before it reads anything."""

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fake_engine import FakeEngine
from tests.router_process import router_process


@pytest.mark.parametrize("module", ["lodestar_router.cli", "lodestar_router.trainer.__main__"])
@pytest.mark.parametrize(
    ("given", "threads"),
    [
        pytest.param(None, "1", id="one-thread"),
        pytest.param("2", "2", id="unless-the-user-says-otherwise"),
    ],
)
def test_numpy_loads_with_the_threads_it_is_to_use(
    module: str, given: str | None, threads: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    if given is not None:
        environment["OPENBLAS_NUM_THREADS"] = given
    code = (
        "import os, sys, builtins; real = builtins.__import__\n"
        "def spy(name, *rest):\n"
        "    if name == 'numpy' and 'numpy' not in sys.modules:\n"
        "        print(os.environ.get('OPENBLAS_NUM_THREADS'))\n"
        "    return real(name, *rest)\n"
        f"builtins.__import__ = spy; import {module}"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.split()[0] == threads


async def test_the_router_may_open_as_many_files_as_the_system_allows() -> None:
    engine = await FakeEngine().start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        async with router_process("--engines", engine.url) as router:
            limits = await asyncio.to_thread(Path(f"/proc/{router.process.pid}/limits").read_text)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await engine.stop()

    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3] == str(hard)
