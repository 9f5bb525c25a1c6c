"""Every router is pointed at the engines and told where to listen."""

import sys
from pathlib import Path

import pytest

from perf.overhead.routers import Router, nginx, ours, production_stack, rust

URLS = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
PYTHON = Path("/somewhere/bin/python")


@pytest.mark.parametrize(
    ("router", "program"),
    [
        pytest.param(ours("lodestar", Path("/model")), sys.executable, id="ours"),
        pytest.param(rust(PYTHON, "cache_aware"), "/somewhere/bin/vllm-router", id="rust"),
        pytest.param(
            production_stack(PYTHON, "roundrobin"), "/somewhere/bin/vllm-router", id="stack"
        ),
    ],
)
def test_commands_name_engines_and_port(router: Router, program: str) -> None:
    command = router.command(8001, URLS)

    assert command[0] == program
    assert "8001" in command
    assert all(url in " ".join(command) for url in URLS)


def test_nginx_gets_its_own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nginx").mkdir()
    binary = tmp_path / "bin" / "nginx"
    binary.parent.mkdir()
    binary.write_text("")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(binary.parent))

    router = nginx(tmp_path)

    assert router is not None
    command = router.command(8001, URLS)
    conf = Path(command[command.index("-c") + 1]).read_text()
    assert "listen 127.0.0.1:8001" in conf
    assert "server 127.0.0.1:1;" in conf
    assert "proxy_buffering off;" in conf


def test_without_nginx_there_is_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert nginx(tmp_path) is None
