"""Run production-stack's own tests, unchanged, against this router and emulated engines.

    python -m tests.production_stack --checkout DIR [--python PYTHON] [--policies NAME ...]
        [--benchmark] [--out DIR]

DIR is a checkout of vllm-project/production-stack. For each policy the router is started in
front of two emulated engines as its tests/e2e/run-static-discovery-routing-test.sh starts the
other router, and tests/e2e/test-routing.py is run by PYTHON, which must have `requests`; it
reads the router's log. --benchmark runs benchmarks/multi-round-qa/multi-round-qa.py (`openai`,
`pandas`) too. Cost: about 10 s per policy.

Exit codes: 0 when all passed, 1 when one did not, 2 when something is missing.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lodestar_router.config.settings import BY_NAME
from tests.e2e.processes import ManagedProcess, Ports, http_ok, post_json

POLICIES = ("roundrobin", "session", "prefixaware", "kvaware", "disaggregated_prefill")
SCRIPT = Path("tests/e2e/test-routing.py")
BENCHMARK = Path("benchmarks/multi-round-qa/multi-round-qa.py")
_MODEL = "facebook/opt-125m"  # as the script has it; the emulated engines go by its name
_SESSION_KEY = "x-user-id"
_SPEED = "20"  # of the emulated engines
_START_S = 60.0


def main(argv: Sequence[str]) -> int:
    """Run what the arguments say."""
    options = _parser().parse_args(argv)
    script = options.checkout / (BENCHMARK if options.benchmark else SCRIPT)
    if not script.exists():
        _say(f"{script} is not there")
        return 2
    out: Path = options.out.resolve()
    passed = {policy: _passes(policy, options, script.resolve(), out) for policy in _known(options)}
    for policy, well in passed.items():
        _say(f"{'passed' if well else 'FAILED'}  {policy}")
    return 0 if all(passed.values()) else 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.production_stack", description=__doc__)
    add = parser.add_argument
    add("--checkout", type=Path, required=True, help="of vllm-project/production-stack")
    add("--python", default=sys.executable, help="interpreter that runs its scripts")
    add("--policies", nargs="+", default=list(POLICIES), help="of --routing-logic")
    add("--benchmark", action="store_true", help="multi-round-qa instead of the tests")
    add("--out", type=Path, default=Path(".build/production-stack"), help="directory of logs")
    return parser


def _known(options: argparse.Namespace) -> Iterator[str]:
    for policy in options.policies:
        try:
            BY_NAME["routing-logic"].convert(policy)
        except ValueError:
            _say(f"skipped {policy}: this router has no such policy")
        else:
            yield policy


def _passes(policy: str, options: argparse.Namespace, script: Path, out: Path) -> bool:
    directory = out / policy
    directory.mkdir(parents=True, exist_ok=True)
    for log in directory.glob("*.log"):
        log.unlink()
    with _router(policy, directory) as url:
        command = _benchmark(url) if options.benchmark else _tests(policy, url, directory)
        return _run([options.python, str(script), *command], directory)


def _run(command: Sequence[str], directory: Path) -> bool:
    done = subprocess.run(command, cwd=directory, text=True, capture_output=True, check=False)
    printed = done.stdout + done.stderr
    (directory / "output.txt").write_text(printed)
    _say("\n".join(printed.splitlines()[-12:]))
    return done.returncode == 0


def _tests(policy: str, url: str, directory: Path) -> list[str]:
    return [
        "--num-requests", "20", "--log-file-path", str(directory / "router.log"),
        "--router-url", url, "--routing-logic", policy, "--result-dir", str(directory),
        "--discovery-type", "static", "--session-key", _SESSION_KEY, "--model", _MODEL,
    ]  # fmt: skip


def _benchmark(url: str) -> list[str]:
    return [
        "--base-url", f"{url}/v1", "--model", _MODEL, "--num-users", "8", "--num-rounds", "4",
        "--qps", "4", "--shared-system-prompt", "200", "--user-history-prompt", "400",
        "--answer-len", "40", "--time", "20", "--log-interval", "10", "--request-with-user-id",
        "--output", "summary.csv",
    ]  # fmt: skip


@contextmanager
def _router(policy: str, directory: Path) -> Iterator[str]:
    """The router in front of two engines that serve; its URL."""
    ports = Ports(9300, 9399)
    with ExitStack() as running:
        engines = [running.enter_context(_engine(ports.take(), directory)) for _ in range(2)]
        port = ports.take()
        flags = [
            "--port", str(port), "--service-discovery", "static",
            "--static-backends", ",".join(engines), "--static-models", f"{_MODEL},{_MODEL}",
            "--static-model-types", "chat,chat", "--log-stats", "--log-stats-interval", "10",
            "--engine-stats-interval", "10", "--request-stats-window", "10",
            "--static-model-labels", "prefill,decode",
            *_role_flags(), "--session-key", _SESSION_KEY, "--routing-logic", policy,
        ]  # fmt: skip
        command = [sys.executable, "-m", "lodestar_router", "--host", "127.0.0.1", *flags]
        url = f"http://localhost:{port}"
        router = running.enter_context(_started("router", command, directory))
        router.wait_until(lambda: _answers(url), _START_S)
        yield url


def _role_flags() -> list[str]:
    known = "prefill-model-labels" in BY_NAME
    flags = ["--prefill-model-labels", "prefill", "--decode-model-labels", "decode"]
    return flags if known else []


@contextmanager
def _engine(port: int, directory: Path) -> Iterator[str]:
    command = [
        sys.executable, "-m", "lodestar_router.emulator.cli", "--port", str(port),
        "--served-model-name", _MODEL, "--speed", _SPEED,
    ]  # fmt: skip
    url = f"http://localhost:{port}"
    with _started(f"engine-{port}", command, directory) as process:
        process.wait_until(lambda: http_ok(f"{url}/health"), _START_S)
        yield url


@contextmanager
def _started(name: str, command: Sequence[str], directory: Path) -> Iterator[ManagedProcess]:
    process = ManagedProcess(name, command, env=dict(os.environ), log=directory / f"{name}.log")
    process.start()
    try:
        yield process
    finally:
        process.stop()


def _answers(url: str) -> bool:
    body = {"model": _MODEL, "prompt": "ready?", "max_tokens": 1}
    try:
        return post_json(f"{url}/v1/completions", body)[0] == 200
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
