"""Processes that a test or a demonstration starts, and that never outlive it.

In       a command, its environment, a log file.
Out      a running process group of our own; everything it prints goes to the log.
Cost     stop() waits up to its timeout; kill() only until the process is reaped.
Errors   ProcessDiedError when a process ends before it is ready, with the log's end.

Only groups started here are ever signalled. Where `setpriv` exists, the process
also gets SIGTERM when the thread that started it dies, so start from the main
thread: a killed test run leaves no engine behind.
"""

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from email.message import Message
from pathlib import Path
from typing import Any

_POLL_S = 0.2


class ProcessDiedError(Exception):
    """A process ended, or never became ready."""


class ManagedProcess:
    """One process in its own group, logging to a file, cleaned up at exit."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        cores: frozenset[int] = frozenset(),
    ) -> None:
        """Empty cores: any."""
        self.name = name
        self.log = log
        self._command = list(command)
        self._env = dict(env)
        self._cores = cores
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process that was last started is still alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Of the process that was last started, also after it ended."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the command; the log is appended to. Does not wait."""
        if self.running:
            raise RuntimeError(f"{self.name} is already running")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_die_with_parent(), *self._command],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if self._cores:
            os.sched_setaffinity(self._process.pid, self._cores)  # before it has any child
        atexit.register(self.kill)

    def kill(self) -> None:
        """SIGKILL the whole group at once."""
        if self._process is None:
            return
        self._signal_group(signal.SIGKILL)
        self._process.wait()
        atexit.unregister(self.kill)

    def stop(self, timeout_s: float = 10.0) -> int | None:
        """SIGTERM the process, then SIGKILL what is left of its group; its exit code."""
        if self._process is None:
            return None
        if self.running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        self.kill()
        return self._process.returncode

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Return once `ready()`; raise if the process ends or time runs out first."""
        deadline_s = time.monotonic() + timeout_s
        while not ready():
            if not self.running:
                raise ProcessDiedError(f"{self.name} ended while starting\n{self.log_end()}")
            if time.monotonic() > deadline_s:
                raise ProcessDiedError(
                    f"{self.name} was not ready within {timeout_s:.0f} s\n{self.log_end()}"
                )
            time.sleep(_POLL_S)

    def log_end(self, lines: int = 30) -> str:
        """The last lines of the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- end of {self.log}\n" + "\n".join(text.splitlines()[-lines:])

    def _signal_group(self, number: signal.Signals) -> None:
        # The group outlives its leader while children of an engine are left.
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


class Ports:
    """Hands out local TCP ports nobody listens on, each once."""

    def __init__(self, first: int, last: int) -> None:
        self._candidates = iter(range(first, last + 1))

    def take(self) -> int:
        """The next free port; RuntimeError when the range is used up."""
        for port in self._candidates:
            if _is_free(port):
                return port
        raise RuntimeError("no free port is left in the range")


def http_ok(url: str, timeout_s: float = 2.0) -> bool:
    """Whether a GET of `url` answers 200 now."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            return int(response.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def post_json(url: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, str], Any]:
    """POST; (status, headers by lower-case name, parsed answer), errors included."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, _lower(response.headers), json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _lower(error.headers), json.load(error)


def _lower(headers: Message) -> Mapping[str, str]:
    return {name.lower(): str(value) for name, value in headers.items()}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def _die_with_parent() -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
