"""The routers that are compared, and how each is started in front of the stub engines.

Ours runs as it is installed; the others where they are found. `--rust PYTHON` and
`--production-stack PYTHON` name interpreters of environments that have PyPI's
vllm-router and production-stack's router; nginx is looked for on the path.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from perf.overhead.stub_engine import MODEL

Command = Callable[[int, Sequence[str]], list[str]]  # (own port, engine URLs) -> argv


@dataclass(frozen=True, slots=True)
class Router:
    """One row of the table."""

    name: str
    command: Command


def ours(policy: str, model_dir: Path, *flags: str) -> Router:
    """This project's router with a real tokenizer and, if it learns, its trainer."""

    def command(port: int, urls: Sequence[str]) -> list[str]:
        return [
            sys.executable, "-m", "lodestar_router", "--engines", *urls,
            "--host", "127.0.0.1", "--port", str(port), "--routing-logic", policy,
            "--tokenizer", f"{MODEL}={model_dir}", "--log-level", "warning", *flags,
        ]  # fmt: skip

    return Router(f"lodestar-router, {policy}", command)


def rust(python: Path, policy: str) -> Router:
    """PyPI's vllm-router."""

    def command(port: int, urls: Sequence[str]) -> list[str]:
        return [
            str(python.with_name("vllm-router")), "--worker-urls", *urls,
            "--host", "127.0.0.1", "--port", str(port), "--policy", policy,
            "--prometheus-port", str(port + 1000), "--log-level", "error",
        ]  # fmt: skip

    return Router(f"vllm-router (Rust), {policy}", command)


def production_stack(python: Path, policy: str) -> Router:
    """production-stack's router."""

    def command(port: int, urls: Sequence[str]) -> list[str]:
        return [
            str(python.with_name("vllm-router")), "--host", "127.0.0.1", "--port", str(port),
            "--service-discovery", "static", "--static-backends", ",".join(urls),
            "--static-models", ",".join([MODEL] * len(urls)), "--routing-logic", policy,
            "--log-level", "error",
        ]  # fmt: skip

    return Router(f"production-stack, {policy}", command)


def nginx(directory: Path) -> Router | None:
    """One nginx worker that takes engines in turn; None if nginx is not installed."""
    binary = shutil.which("nginx")
    if binary is None:
        return None

    def command(port: int, urls: Sequence[str]) -> list[str]:
        home = directory.resolve() / "nginx"
        home.mkdir(parents=True, exist_ok=True)
        file = home / "nginx.conf"
        file.write_text(_nginx_conf(home, port, urls))
        return [binary, "-p", str(home), "-c", str(file)]

    return Router("nginx, one worker, no routing", command)


def _nginx_conf(home: Path, port: int, urls: Sequence[str]) -> str:
    servers = "\n".join(f"    server {url.removeprefix('http://')};" for url in urls)
    temporary = "\n".join(
        f"  {kind}_temp_path {home};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
{temporary}
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  keepalive_requests 1000000;
  upstream engines {{
{servers}
    keepalive 256;
    keepalive_requests 1000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engines;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
