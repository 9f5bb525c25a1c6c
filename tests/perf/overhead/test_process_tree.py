"""CPU and memory are those of the process and of all that it started."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from perf.overhead.process_tree import cpu_s, resident_bytes, tree

BUSY = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {BUSY + "time.sleep(60)"!r}])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def parent_and_child() -> Iterator[tuple[int, int]]:
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        yield process.pid, child
    finally:
        os.kill(child, 9)
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_child_counts_with_its_parent(parent_and_child: tuple[int, int]) -> None:
    parent, child = parent_and_child

    assert set(tree(parent)) == {parent, child}
    deadline_s = time.monotonic() + 20
    while cpu_s(child) < 0.2:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    assert cpu_s(parent) > cpu_s(child)
    assert resident_bytes(parent) > resident_bytes(child) > 1_000_000


def test_a_process_that_is_gone_has_used_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert cpu_s(process.pid) == 0.0
    assert resident_bytes(process.pid) == 0
