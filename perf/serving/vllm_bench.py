"""vLLM's own load generator, `vllm bench serve`, pointed at the router.

In       the interpreter that has vLLM, a URL, a data set with its sizes, a seed.
Out      Measured: what the tool's detailed result says.
Cost     about ten seconds of start-up, then the load.
Errors   BenchFailedError with the end of the tool's output when it does not finish.
Source   vllm/benchmarks/serve.py and vllm/benchmarks/datasets at v0.32.0.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.serving.records import Measured
from tests.e2e.engines import offline

TIMEOUT_S = 900.0

_LAUNCHER = Path(__file__).with_name("vllm_cli.py")


class BenchFailedError(Exception):
    """`vllm bench serve` ended without a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmBench:
    """One call of `vllm bench serve`; `options` are its flags without dashes."""

    python: Path
    tokenizer: Path
    dataset: str
    prompts: int
    per_s: float  # mean arrivals per second
    options: Mapping[str, int | float]

    def run(self, url: str, model: str, seed: int) -> Measured:
        """Run it to its end."""
        return _measured(self.result(url, model, seed))

    def result(
        self, url: str, model: str, seed: int, *, prompts_to: Path | None = None
    ) -> dict[str, Any]:
        """Run it to its end; the tool's detailed result, and the prompts in a file of their own."""
        with tempfile.TemporaryDirectory() as directory:
            result = Path(directory) / "result.json"
            finished = subprocess.run(
                self.command(url, model, seed, result, prompts_to),
                env=os.environ | offline() | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
                check=False,
            )
            if finished.returncode != 0 or not result.exists():
                output = finished.stdout.decode(errors="replace").splitlines()
                raise BenchFailedError("\n".join(["vllm bench serve failed:", *output[-25:]]))
            detailed: dict[str, Any] = json.loads(result.read_text())
            return detailed

    def command(
        self, url: str, model: str, seed: int, result: Path, prompts_to: Path | None = None
    ) -> list[str]:
        """The command line that is run."""
        flags = {
            "backend": "openai",
            "base-url": url,
            "model": model,
            "tokenizer": self.tokenizer,
            "dataset-name": self.dataset,
            "num-prompts": self.prompts,
            "request-rate": self.per_s,
            "seed": seed,
            "result-dir": result.parent,
            "result-filename": result.name,
            **self.options,
        }
        keep = [] if prompts_to is None else ["--prompts-to", str(prompts_to)]
        command = [str(self.python), str(_LAUNCHER), *keep, "bench", "serve"]
        for name, value in flags.items():
            command += [f"--{name}", str(value)]
        return [*command, "--ignore-eos", "--save-result", "--save-detailed", "--disable-tqdm"]


def _measured(result: Mapping[str, Any]) -> Measured:
    errors: list[str] = result["errors"]
    return Measured(
        requests=result["completed"] + result["failed"],
        failed=result["failed"],
        duration_s=result["duration"],
        # A failed request has an error text, and a TTFT that means nothing.
        ttfts_s=[ttft for ttft, error in zip(result["ttfts"], errors, strict=True) if not error],
        errors=[error for error in errors if error][:5],
    )
