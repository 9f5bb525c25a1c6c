"""What a request costs a router, beside other routers.

    python -m perf.overhead --out DIR [--rust PYTHON] [--production-stack PYTHON]

Writes DIR/results.jsonl (the first line is what it was run with) and
DIR/table.md. CPU is that of the router's whole process tree in microseconds, per
request or per streamed chunk; the tree is pinned to one core, load and engines to
another. Cost: with the defaults about 40 seconds per router and repeat.
"""

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from perf.overhead.cells import CELLS, LATENCY_CELL
from perf.overhead.measure import Plan, Row, measure
from perf.overhead.report import table
from perf.overhead.routers import Router, nginx, ours, production_stack, rust
from tests.e2e import tiny_model


def main(argv: Sequence[str]) -> int:
    """Measure what the arguments say; 1 if a request failed."""
    options = _parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):  # unwind, so that everything started ends
        signal.signal(number, signal.default_int_handler)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    work: Path = options.directory
    work.mkdir(parents=True, exist_ok=True)
    cells = [CELLS[name] for name in dict.fromkeys([*options.cells, LATENCY_CELL])]
    plan = Plan(
        directory=work, cells=cells, seconds=options.seconds, repeats=options.repeats,
        router_core=options.router_core, load_core=options.load_core, seed=options.seed,
    )  # fmt: skip
    rows: list[Row] = []
    with (out / "results.jsonl").open("w") as file:
        print(json.dumps(_circumstances(argv)), file=file, flush=True)

        def keep(row: Row) -> None:
            rows.append(row)
            print(json.dumps(row), file=file, flush=True)
            print(_line(row), flush=True)

        measure(_routers(options, work), plan, keep)
    text = table(rows)
    (out / "table.md").write_text(text)
    print(f"\n{text}\nresults: {out}")
    return 1 if any(row.get("errors") for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf.overhead", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="directory of the results")
    add("--policies", nargs="+", default=["roundrobin", "lodestar"], help="of our router")
    add("--cells", nargs="+", default=list(CELLS), choices=list(CELLS))
    add("--seconds", type=float, default=6.0, help="per cell, a quarter more to warm up")
    add("--repeats", type=int, default=3)
    add("--seed", type=int, default=1, help="of the request bodies")
    add("--router-core", type=int, default=0)
    add("--load-core", type=int, default=1)
    add("--rust", type=Path, help="interpreter of an environment with PyPI's vllm-router")
    add("--production-stack", type=Path, help="the same with production-stack's router")
    add("--directory", type=Path, default=Path(".build/overhead"), help="model, bodies, logs")
    return parser


def _routers(options: argparse.Namespace, work: Path) -> list[Router]:
    model_dir = (work / "model").resolve()
    tiny_model.write(model_dir)
    routers = [ours(policy, model_dir) for policy in options.policies]
    if options.rust is not None:
        routers += [rust(options.rust, policy) for policy in ("round_robin", "cache_aware")]
    else:
        print("skipped: vllm-router (Rust); name an environment that has it with --rust")
    if options.production_stack is not None:
        routers.append(production_stack(options.production_stack, "roundrobin"))
    else:
        print("skipped: production-stack; name an environment that has it with --production-stack")
    plain = nginx(work)
    if plain is None:
        print("skipped: nginx is not installed")
    else:
        routers.append(plain)
    return routers


def _circumstances(argv: Sequence[str]) -> dict[str, object]:
    head = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "command": shlex.join(["python", "-m", "perf.overhead", *argv]),
        "commit": head.stdout.strip(),
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }


def _line(row: Row) -> str:
    figures = (f"{k} {v:.2f}" for k, v in row.items() if isinstance(v, float))
    return f"{row['router']:32} {row['cell']:12} {'  '.join(figures)}"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted; everything that was started has ended")
