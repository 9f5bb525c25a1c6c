"""Two unequal real engines, shared by every test of the session that asks for them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import tiny_model
from tests.e2e.engines import VllmEngine, two_unequal_engines

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The interpreter that has vLLM; `make test-vllm` builds and names it."""
    named = os.environ.get("LODESTAR_VLLM_PYTHON")
    if not named:
        pytest.skip("needs real vLLM: run `make test-vllm`")
    return (ROOT / named).absolute()  # not resolved: a link out of its environment would lose it


@pytest.fixture(scope="session")
def workdir() -> Path:
    """Where logs stay to be read after a failure."""
    return ROOT / ".build" / "e2e"


@pytest.fixture(scope="session")
def engines(vllm_python: Path, workdir: Path) -> Iterator[list[VllmEngine]]:
    """A shallow and a deep engine, ready."""
    model_dir = workdir / "model"
    tiny_model.write(model_dir)
    with two_unequal_engines(vllm_python, model_dir, workdir) as started:
        yield started
