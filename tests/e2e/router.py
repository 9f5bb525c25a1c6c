"""The router as its users run it: the console script, in front of given engines.

In       engines, a policy, a directory for its files.
Out      RouterProcess: a URL, and what /engines and /debug/decisions say.
Cost     one to three seconds until ready.
Errors   ProcessDiedError when it does not come up, with the end of its log.
"""

import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.engines import VllmEngine
from tests.e2e.processes import ManagedProcess, Ports, ProcessDiedError, http_ok, post_json

ROUTER_PORTS = (8150, 8199)
START_TIMEOUT_S = 60.0
VIEW_TIMEOUT_S = 60.0


class RouterProcess:
    """One router with fresh state, in front of `engines`."""

    def __init__(
        self, policy: str, engines: Sequence[VllmEngine], directory: Path, *flags: str
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        engines_file = directory / "engines.yaml"
        engines_file.write_text(yaml.safe_dump({"engines": [e.entry() for e in engines]}))
        port = Ports(*ROUTER_PORTS).take()
        self.policy = policy
        self.url = f"http://127.0.0.1:{port}"
        self._engines = engines
        self._process = ManagedProcess(
            f"router ({policy})",
            [
                str(Path(sys.executable).with_name("lodestar-router")),
                "--engines-file", str(engines_file),
                "--host", "127.0.0.1",
                "--port", str(port),
                "--tokenizer", str(engines[0].model_dir),
                "--routing-logic", policy,
                "--state-dir", str(directory / "state"),
                # Engines compute on the router's cores here: it is late without a fault of its own.
                "--max-loop-lag", "0",
                *flags,
            ],
            env=dict(os.environ),
            log=directory / "router.log",
        )  # fmt: skip

    def start(self) -> None:
        """Start and wait until every engine is up and its KV view is exact."""
        self._process.start()
        self._process.wait_until(lambda: http_ok(f"{self.url}/health"), START_TIMEOUT_S)
        self.wait_views_exact()

    def stop(self) -> int | None:
        """Drain and end; the exit code."""
        return self._process.stop(timeout_s=20.0)

    def wait_views_exact(self, timeout_s: float = VIEW_TIMEOUT_S) -> None:
        """Block until every engine is up with an exact view."""
        deadline_s = time.monotonic() + timeout_s
        while not all(e["up"] and e["prefix_view"] == "exact" for e in self.engines()):
            if time.monotonic() > deadline_s:
                raise ProcessDiedError(
                    f"no exact views: {self.engines()}\n{self._process.log_end()}"
                )
            time.sleep(0.1)

    def engines(self) -> list[dict[str, Any]]:
        """GET /engines."""
        return list(self.get("/engines"))

    def engine(self, engine: VllmEngine) -> dict[str, Any]:
        """What /engines says of one engine."""
        return next(said for said in self.engines() if said["url"] == engine.url)

    def get(self, path: str) -> Any:
        """The parsed JSON of one of the router's own endpoints."""
        return json.loads(self._text(path))

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, str], Any]:
        """POST JSON; (status, headers, parsed answer), errors included."""
        return post_json(self.url + path, body)

    def metrics(self) -> str:
        """The router's own metrics."""
        return self._text("/metrics")

    def _text(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return bytes(response.read()).decode()

    def log_end(self) -> str:
        """The last lines the router logged."""
        return self._process.log_end()


@contextmanager
def routed(
    policy: str, engines: Sequence[VllmEngine], directory: Path, *flags: str
) -> Iterator[RouterProcess]:
    """A ready router, ended on the way out."""
    router = RouterProcess(policy, engines, directory, *flags)
    try:
        router.start()
        yield router
    finally:
        router.stop()
