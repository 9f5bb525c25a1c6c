"""Compare routing policies on two unequal real vLLM engines.

    python -m perf.serving --vllm-python .build/vllm/bin/python [--size short]

Writes one JSON line per run, the first being what it was run with, and prints a
table of ratios. Cost on two cores: about 110 seconds per policy and repeat in
full size, 60 in short size.
"""

import argparse
import json
import platform
import shlex
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from lodestar_router.policy.registry import POLICIES
from perf.serving.experiment import COMPARED, compare
from perf.serving.loads import loads
from perf.serving.report import table
from tests.e2e import tiny_model
from tests.e2e.engines import two_unequal_engines


def main(argv: list[str]) -> int:
    """Run what the arguments say; 1 if a request failed."""
    options = _parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):  # unwind, so that engines end
        signal.signal(number, signal.default_int_handler)
    directory: Path = options.directory.resolve()
    model_dir = directory / "model"
    tiny_model.write(model_dir)
    chosen = loads(options.size, vllm_python=options.vllm_python.absolute(), tokenizer=model_dir)
    if options.loads:
        chosen = {name: chosen[name] for name in options.loads}
    results = []
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with (
        options.results.open("w") as file,
        two_unequal_engines(options.vllm_python.absolute(), model_dir, directory) as engines,
    ):
        print(json.dumps(_circumstances(argv)), file=file, flush=True)
        for result in compare(
            options.policies, chosen, engines,
            repeats=options.repeats, first_seed=options.seed, directory=directory,
        ):  # fmt: skip
            results.append(result)
            line = json.dumps(asdict(result))
            print(line, file=file, flush=True)
            print(line, flush=True)
    print(f"\n{table(results, options.reference)}\n\nresults: {options.results}")
    return 1 if any(result.failed for result in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf.serving", description=__doc__)
    add = parser.add_argument
    add("--vllm-python", type=Path, required=True, help="interpreter that has vLLM")
    # `session` wants a key, and the loads have no sessions by name.
    choices = [name for name in POLICIES if name != "session"]
    add("--policies", nargs="+", default=list(COMPARED), choices=choices)
    add("--loads", nargs="+", help="all of them unless given")
    add("--size", choices=("short", "full"), default="full")
    add("--repeats", type=int, default=3)
    add("--seed", type=int, default=1, help="of the first repeat; the next has the next")
    add("--reference", default="roundrobin", help="policy the ratios are against")
    add("--directory", type=Path, default=Path(".build/serving"), help="model, logs, state")
    add("--results", type=Path, default=Path(".build/serving/results.jsonl"))
    return parser


def _circumstances(argv: list[str]) -> dict[str, object]:
    head = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "command": shlex.join(["python", "-m", "perf.serving", *argv]),
        "commit": head.stdout.strip(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted; everything that was started has ended, finished runs are kept")
