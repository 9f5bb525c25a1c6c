"""Try whether the router keeps its promises for long.

    python -m perf.soak SCENARIO --out DIR [--scale 0.01]

soak      10 minutes at 70 % of one core while engines die and return at random
aborts    100,000 requests of which a third of the clients leave, at any time
short     1,000,000 requests, each answered at once
slow      1,000 clients that read one byte a second
streams   2,000 streams of 50 tokens a second
flood     20 s of connections and requests, as fast as one core can, while /health is asked

Writes DIR/SCENARIO.json and prints it; 1 if a promise was broken. `--production-stack
PYTHON` tries that router in our place.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from random import Random
from typing import Any

import uvloop

from perf.overhead.routers import Router, ours, production_stack
from perf.soak import crowds, flooded, scenarios
from perf.soak.processes import Engine, RouterUnderTest, engines, router
from tests.e2e import tiny_model

_Run = Callable[[RouterUnderTest, Sequence[Engine], Random, float], Coroutine[Any, Any, Any]]

SCENARIOS: dict[str, _Run] = {
    "soak": lambda tried, fleet, rng, scale: scenarios.soak(
        tried, fleet, rng, minutes=10 * scale, core_share=0.7
    ),
    "aborts": lambda tried, _, rng, scale: scenarios.aborts(
        tried, rng, requests=int(100_000 * scale)
    ),
    "short": lambda tried, _, rng, scale: scenarios.short(
        tried, rng, requests=int(1_000_000 * scale)
    ),
    "slow": lambda tried, _, rng, scale: crowds.slow_readers(
        tried, count=int(1000 * scale), seconds=20.0
    ),
    "flood": lambda tried, _, __, scale: flooded.flooded(tried, seconds=20.0 * scale),
    "streams": lambda tried, fleet, rng, scale: crowds.streams(
        tried, [engine.port for engine in fleet], count=int(2000 * scale), seconds=20.0
    ),
}

_ENGINES = {"streams": (4, "perf.soak.token_engine")}
_FLAGS = {"flood": ("--max-concurrent", "32", "--queue-depth", "64")}


def main(argv: Sequence[str]) -> int:
    """Run one scenario."""
    options = _parser().parse_args(argv)
    work: Path = options.directory
    work.mkdir(parents=True, exist_ok=True)
    kind = _kind(options, work)
    number, module = _ENGINES.get(options.scenario, (3, "perf.overhead.stub_engine"))
    with engines(
        number, work, core=options.load_core, python=sys.executable, module=module
    ) as fleet:
        urls = [engine.url for engine in fleet]
        with router(kind, urls, work, core=options.router_core) as tried:
            os.sched_setaffinity(0, {options.load_core})
            run = SCENARIOS[options.scenario](tried, fleet, Random(options.seed), options.scale)
            report = uvloop.run(run)
            alive = tried.running
    if not alive:
        report["wrong"].append("the router ended")
    text = json.dumps({"router": kind.name, **_circumstances(options), **report}, indent=1)
    sys.stdout.write(text + "\n")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{options.scenario}{options.suffix}.json").write_text(text + "\n")
    return 1 if report["wrong"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf.soak", description=__doc__)
    add = parser.add_argument
    add("scenario", choices=list(SCENARIOS))
    add("--out", type=Path, help="directory of the reports")
    add("--suffix", default="", help="of the report's name")
    add("--policy", default="lodestar", help="of our router")
    add("--production-stack", type=Path, help="interpreter of an environment with that router")
    add("--scale", type=float, default=1.0, help="of the number of requests, clients or minutes")
    add("--seed", type=int, default=1)
    add("--router-core", type=int, default=0)
    add("--load-core", type=int, default=1)
    add("--directory", type=Path, default=Path(".build/soak"), help="model and logs")
    return parser


def _kind(options: argparse.Namespace, work: Path) -> Router:
    if options.production_stack is not None:
        return production_stack(options.production_stack, "roundrobin")
    model_dir = (work / "model").resolve()
    tiny_model.write(model_dir)
    return ours(options.policy, model_dir, *_FLAGS.get(options.scenario, ()))


def _circumstances(options: argparse.Namespace) -> dict[str, object]:
    head = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "scenario": options.scenario,
        "scale": options.scale,
        "seed": options.seed,
        "commit": head.stdout.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
