"""Hold virtual time against real processes.

    python -m perf.agreement emulated --vllm-python .build/vllm/bin/python
    python -m perf.agreement vllm --vllm-python .build/vllm/bin/python
    python -m perf.agreement again RECORDING...

`emulated` runs the router on emulated engines, `vllm` on a real one; both then
replay what was recorded, add a line to OUT/results.jsonl and write OUT/table.md.
`again` only replays. Exit code 1 if a mean TTFT differs by more than its limit.

`vllm bench serve`, the router, its trainer and the engines share this machine's
cores with whatever else runs: what that adds to TTFT counts as disagreement.
"""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lodestar_router.policy.registry import POLICIES
from perf.agreement import emulated, real
from perf.agreement.compare import compare, table
from perf.agreement.recording import Recording, load
from perf.agreement.replay import local_delays, replay
from perf.routing.cells import Delays
from perf.routing.runner import git_commit

_SEEDS = 5  # of a replay
# One engine leaves nothing to choose: a policy without a trainer that wants cores too.
_REAL_POLICY = "lmetric"
_LIMIT_EMULATED, _LIMIT_REAL = 0.10, 0.20


def main(argv: list[str]) -> int:
    """Run what the arguments say."""
    options = _parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):  # unwind, so that engines end
        signal.signal(number, signal.default_int_handler)
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "results.jsonl"
    agree = True
    for recording in _recordings(options):
        result = _result(recording) | {
            "git_commit": git_commit(),
            "command": shlex.join(["python", "-m", "perf.agreement", *argv]),
        }
        agree = agree and result["agrees"]
        with kept.open("a") as file:
            print(json.dumps(result), file=file)
        print(table([result]), flush=True)
    results = [json.loads(line) for line in kept.read_text().splitlines()]
    (options.out / "table.md").write_text(table(results) + "\n")
    return 0 if agree else 1


def _recordings(options: argparse.Namespace) -> Iterator[Recording]:
    """As they are made, each kept in a file; or from files."""
    if options.kind == "again":
        yield from map(load, options.recordings)
        return
    directory: Path = options.directory.resolve()
    python = options.vllm_python.absolute()
    for seed in range(options.seed, options.seed + options.repeats):
        if options.kind == "vllm":
            made = real.record(
                policy=_REAL_POLICY, seed=seed, vllm_python=python, directory=directory,
                load=options.load, layers=options.layers,
            )  # fmt: skip
            yield _saved(made, directory)
            continue
        for name in options.cells:
            for policy in options.policies:
                place = directory / f"{name}-{policy}-{seed}"
                made = emulated.record(
                    name, policy=policy, seed=seed, vllm_python=python, directory=place
                )
                yield _saved(made, directory)


def _saved(recording: Recording, directory: Path) -> Recording:
    path = directory / f"{recording.cell}-{recording.policy}-{recording.seed}.json.gz"
    recording.save(path)
    print(f"recorded: {path}", flush=True)
    return recording


def _result(recording: Recording) -> dict[str, Any]:
    seeds = range(recording.seed, recording.seed + _SEEDS)
    delays = local_delays(recording)
    return compare(
        recording,
        [replay(recording, seed=seed, delays=delays) for seed in seeds],
        [replay(recording, seed=seed, delays=Delays()) for seed in seeds],
        limit=_LIMIT_REAL if recording.measured else _LIMIT_EMULATED,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m perf.agreement",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("emulated", "vllm"):
        add = kinds.add_parser(kind).add_argument
        add("--vllm-python", type=Path, required=True, help="interpreter that has vLLM")
        add("--seed", type=int, default=1, help="of the first repeat; the next has the next")
        add("--repeats", type=int, default=1)
        add("--out", type=Path, default=Path(".build/agreement"), help="results and table")
        add("--directory", type=Path, default=Path(".build/agreement"), help="recordings, logs")
        if kind == "emulated":
            add("--policies", nargs="+", default=["lodestar"], choices=list(POLICIES))
            add("--cells", nargs="+", default=list(emulated.CELLS), choices=list(emulated.CELLS))
        else:
            add("--load", type=float, default=0.6, help="of the engine's saturated throughput")
            add("--layers", type=int, default=real.LAYERS, help="of the model; more is slower")
    again = kinds.add_parser("again").add_argument
    again("recordings", nargs="+", type=Path)
    again("--out", type=Path, default=Path(".build/agreement"))
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted; everything that was started has ended, finished runs are kept")
