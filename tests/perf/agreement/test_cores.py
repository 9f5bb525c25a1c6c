"""Cores for processes, on real ones."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from perf.agreement.cores import move, one_core_left_free

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores"
)


@pytest.fixture
def cat() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, which runs: it has answered."""
    with subprocess.Popen(
        ["cat"], start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"ready")
            assert process.stdout.read(5) == b"ready"
            yield process
        finally:
            process.kill()


def test_one_core_is_left_free_for_a_while() -> None:
    allowed = os.sched_getaffinity(0)

    with one_core_left_free() as core:
        assert os.sched_getaffinity(0) == allowed - {core}

    assert os.sched_getaffinity(0) == allowed


def test_the_named_process_of_a_session_is_moved(cat: subprocess.Popen[bytes]) -> None:
    core = max(os.sched_getaffinity(0))

    move(cat.pid, "cat", core)

    assert os.sched_getaffinity(cat.pid) == {core}


@pytest.mark.parametrize(
    ("own_session", "name"),
    [pytest.param(True, "worker", id="no-such-name"), pytest.param(False, "cat", id="elsewhere")],
)
def test_a_process_that_is_not_there_is_an_error(
    cat: subprocess.Popen[bytes], own_session: bool, name: str
) -> None:
    session = cat.pid if own_session else os.getsid(0)
    before = os.sched_getaffinity(cat.pid)

    with pytest.raises(LookupError, match=name):
        move(session, name, 0)

    assert os.sched_getaffinity(cat.pid) == before
