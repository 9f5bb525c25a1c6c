"""What the plugin reads from its environment, and where a process binds.

In       environment variables LODESTAR_STATS_*.
Out      Settings; bind_endpoint(...) for one API-server process.
Errors   ValueError in words an operator can act on.

No I/O, no vLLM.
"""

from collections.abc import Mapping
from dataclasses import dataclass

ENDPOINT_VARIABLE = "LODESTAR_STATS_ENDPOINT"
INTERVAL_VARIABLE = "LODESTAR_STATS_INTERVAL_MS"
HEARTBEAT_VARIABLE = "LODESTAR_STATS_HEARTBEAT_MS"

# 5557 and 5558 are what vLLM's own KV events and their replay use.
DEFAULT_ENDPOINT = "tcp://*:5559"
DEFAULT_INTERVAL_MS = 10.0  # about one step of a loaded GPU engine
DEFAULT_HEARTBEAT_MS = 250.0  # the router's /metrics interval: never staler than polling
LAST_PORT = 65535


@dataclass(frozen=True)
class Settings:
    """How this process publishes."""

    endpoint: str  # "": publish nothing
    interval_s: float  # least time between two messages of one rank
    heartbeat_s: float  # most time between two messages of one rank


def settings_from(environ: Mapping[str, str]) -> Settings:
    """Read the environment; a value that is no positive number is refused."""
    interval_s = _milliseconds(environ, INTERVAL_VARIABLE, DEFAULT_INTERVAL_MS)
    heartbeat_s = _milliseconds(environ, HEARTBEAT_VARIABLE, DEFAULT_HEARTBEAT_MS)
    return Settings(
        endpoint=environ.get(ENDPOINT_VARIABLE, DEFAULT_ENDPOINT).strip(),
        interval_s=interval_s,
        heartbeat_s=max(heartbeat_s, interval_s),
    )


def bind_endpoint(endpoint: str, *, first_rank: int, api_process: int) -> str:
    """The endpoint that one API-server process binds.

        port = port of `endpoint` + first data-parallel rank served + API-server index

    so processes that share a host and an environment never meet: with internal
    load balancing all ranks come from one process (or from API servers that
    number at most the ranks), with external load balancing each rank has its own.
    A wildcard port (`*` or 0) is left alone; `ipc://` gets a suffix.
    """
    offset = first_rank + api_process
    scheme, separator, address = endpoint.partition("://")
    if not separator or scheme not in ("tcp", "ipc") or not address:
        raise ValueError(
            f"{ENDPOINT_VARIABLE}={endpoint!r}: expected tcp://HOST:PORT or ipc://PATH"
        )
    if scheme == "ipc":
        return endpoint if offset == 0 else f"{endpoint}.{offset}"
    host, _, port = address.rpartition(":")
    if port in ("*", "0") and host:
        return endpoint
    if not host or not port.isdecimal() or int(port) + offset > LAST_PORT:
        raise ValueError(f"{ENDPOINT_VARIABLE}={endpoint!r}: no usable port (offset {offset})")
    return f"tcp://{host}:{int(port) + offset}"


def _milliseconds(environ: Mapping[str, str], name: str, default_ms: float) -> float:
    text = environ.get(name, "").strip()
    try:
        value_ms = float(text) if text else default_ms
    except ValueError:
        value_ms = -1.0
    if not 0.0 < value_ms < float("inf"):
        raise ValueError(f"{name}={text!r}: expected a positive number of milliseconds")
    return value_ms / 1000.0
