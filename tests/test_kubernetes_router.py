"""The whole router in front of pods that come and go, as a fake API server tells it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from lodestar_router.core.kv_events import ViewId
from lodestar_router.core.types import EngineId, PrefixViewKind
from lodestar_router.errors import ConfigError
from tests.discovery.fake_api import NAMESPACE, FakeApiServer
from tests.discovery.objects import endpoints, pod, service
from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, completion, get, post
from tests.test_assembly import ask, until


def kubeconfig(path: Path, url: str) -> Path:
    """Credentials for a server without any."""
    content = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(content))
    return path


def pod_of(engine: FakeEngine, name: str = "a", **fields: Any) -> dict[str, Any]:
    """A pod at a fake engine's address."""
    annotations = {"lodestar.ai/port": str(engine.port), **fields.pop("annotations", {})}
    return pod(name, ip="127.0.0.1", annotations=annotations, **fields)


@dataclass
class Routed:
    """A router that looks for engines at `server`."""

    router: Router
    port: int
    server: FakeApiServer

    async def get(self, path: str) -> tuple[int, Any]:
        client = await RawClient.to(self.port)
        await client.send(get(path))
        reply = await client.reply()
        await client.close()
        return reply.status, reply.json()

    def up(self, *engines: FakeEngine) -> bool:
        """Whether exactly these take requests."""
        taking = {state.spec.url for state in self.router.fleet if state.up and not state.holds}
        return taking == {engine.url for engine in engines}


@asynccontextmanager
async def routed(
    server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str = ""
) -> AsyncIterator[Routed]:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kubeconfig", server.url)))
    argv = f"--service-discovery k8s --k8s-namespace {NAMESPACE} --k8s-label-selector model=llama"
    argv += " --port 0 --host 127.0.0.1 --metrics-interval 0.05 --seed 1 --no-trainer"
    router = Router(parse([*argv.split(), *flags.split()], {}))
    try:
        yield Routed(router, await router.start(), server)
    finally:
        await router.stop(drain_s=0.5)


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    running = await FakeApiServer().start()
    yield running
    await running.stop()


@pytest.fixture
async def engines() -> AsyncIterator[list[FakeEngine]]:
    running = [await FakeEngine().start() for _ in range(3)]
    yield running
    for engine in running:
        await engine.stop()


async def test_pods_that_are_ready_take_requests(
    server: FakeApiServer,
    engines: list[FakeEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b, c = engines
    server.put("pods", pod_of(a, "a"))
    server.put("pods", pod_of(b, "b", ready=False))
    async with routed(server, tmp_path, monkeypatch) as it:
        assert it.up(a)

        server.put("pods", pod_of(b, "b"))
        server.put("pods", pod_of(c, "c"))
        await until(lambda: it.up(a, b, c))
        server.put("pods", pod_of(a, "a", deleted=True))
        await until(lambda: it.up(b, c))
        server.delete("pods", "b")
        await until(lambda: it.up(c))

        _, shown = await it.get("/engines")
        assert {one["name"]: one["holds"] for one in shown} == {
            "a": {"discovery": "terminating"},
            "c": {},
        }
        assert (await ask(it.port, completion()))[0] == 200


async def test_stream_on_a_pod_that_terminates_comes_to_its_end(
    server: FakeApiServer,
    engines: list[FakeEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaves, stays, _ = engines
    leaves.tokens, leaves.gap_s = 30, 0.02
    server.put("pods", pod_of(leaves, "leaves"))
    async with routed(server, tmp_path, monkeypatch) as it:
        client = await RawClient.to(it.port)
        await client.send(post("/v1/completions", completion(stream=True)))
        await client.head()

        server.put("pods", pod_of(stays, "stays"))
        server.put("pods", pod_of(leaves, "leaves", deleted=True))
        await until(lambda: it.up(stays))
        assert (await ask(it.port, completion()))[0] == 200
        server.delete("pods", "leaves")
        await until(lambda: len(it.router.fleet) == 1)
        body = b"".join([chunk async for chunk in client.chunks()])
        await client.close()

        assert body.endswith(b"data: [DONE]\n\n")
        assert (leaves.aborted, len(stays.requests)) == (0, 1)


async def test_another_pod_at_an_address_starts_with_nothing_known(
    server: FakeApiServer,
    engines: list[FakeEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engines[0]
    server.put("pods", pod_of(engine, "old"))
    async with routed(server, tmp_path, monkeypatch) as it:
        prompt = list(range(64))
        await ask(it.port, completion(prompt=prompt))
        _, known = await ask(it.port, completion(prompt=prompt))
        assert int(known["x-lodestar-cached-tokens"]) > 0
        it.router.index.set_kind(ViewId(it.router.engine_ids[0]), PrefixViewKind.PARTIAL)
        old = it.router.fleet[it.router.engine_ids[0]]

        server.delete("pods", "old")
        server.put("pods", pod_of(engine, "new"))
        await until(lambda: it.up(engine) and it.router.fleet[it.router.engine_ids[0]] is not old)
        status, headers = await ask(it.port, completion(prompt=prompt))

        assert (status, headers["x-lodestar-cached-tokens"]) == (200, "0")


async def test_pod_that_hangs_delays_no_other(
    server: FakeApiServer,
    engines: list[FakeEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hangs, quick, late = engines
    hangs.models_delay_s = 3600.0
    server.put("pods", pod_of(hangs, "hangs"))
    server.put("pods", pod_of(quick, "quick"))
    async with routed(server, tmp_path, monkeypatch) as it:
        began_s = time.monotonic()
        assert it.up(quick)

        server.put("pods", pod_of(late, "late"))
        await until(lambda: it.up(quick, late))

        assert time.monotonic() - began_s < 5  # its probe may take 10
        assert (await ask(it.port, completion()))[0] == 200


async def test_patched_annotation_has_the_adapters_read_again(
    server: FakeApiServer,
    engines: list[FakeEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engines[0]
    server.put("pods", pod_of(engine))
    async with routed(server, tmp_path, monkeypatch) as it:
        assert (await ask(it.port, completion(model="sql")))[0] == 404

        engine.adapters = ["sql"]
        server.put("pods", pod_of(engine, annotations={"lora-modified": "2026-01-01T00:00:00Z"}))
        await until(lambda: it.router.fleet[it.router.engine_ids[0]].serves("sql"))

        assert (await ask(it.port, completion(model="sql")))[0] == 200


async def test_sleeping_engine_is_unavailable_until_it_wakes(
    server: FakeApiServer,
    engines: list[FakeEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engines[0]
    engine.sleeping = False
    server.put("pods", pod_of(engine))
    async with routed(server, tmp_path, monkeypatch) as it:
        engine.sleeping = True
        server.put("pods", pod_of(engine, labels={"sleeping": "true"}))
        await until(lambda: it.up())
        assert (await ask(it.port, completion()))[0] == 503

        engine.sleeping = False
        server.put("pods", pod_of(engine))

        await until(lambda: it.up(engine))
        assert (await ask(it.port, completion()))[0] == 200


async def test_router_starts_without_the_api_server_and_serves_when_it_is_there(
    server: FakeApiServer,
    engines: list[FakeEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.put("pods", pod_of(engines[0]))
    await server.stop()
    async with routed(server, tmp_path, monkeypatch) as it:
        assert (await it.get("/health"))[0] == 200
        assert (await ask(it.port, completion()))[0] == 503  # not 404: nobody knows yet

        await server.start()
        await until(lambda: it.up(engines[0]))

        assert (await ask(it.port, completion(model="nowhere")))[0] == 404
        await server.stop()
        assert (await ask(it.port, completion()))[0] == 200
        assert (await it.get("/health"))[0] == 200


async def test_model_whose_pods_are_all_gone_is_unavailable_not_unknown(
    server: FakeApiServer,
    engines: list[FakeEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.put("pods", pod_of(engines[0]))
    async with routed(server, tmp_path, monkeypatch) as it:
        server.delete("pods", "a")
        await until(lambda: len(it.router.fleet) == 0)

        assert (await ask(it.port, completion()))[0] == 503


async def test_another_model_under_the_same_name_takes_over_when_the_old_pods_terminate(
    server: FakeApiServer,
    engines: list[FakeEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new, _ = engines
    new.root = "/models/tiny-v2"
    server.put("pods", pod_of(old, "old"))
    async with routed(server, tmp_path, monkeypatch) as it:
        server.put("pods", pod_of(new, "new"))
        await until(lambda: len(it.router.fleet) == 2)
        assert (await ask(it.port, completion()))[1]["x-lodestar-engine"] == f"127.0.0.1:{old.port}"

        server.put("pods", pod_of(old, "old", deleted=True))

        await until(lambda: it.up(new))


async def test_source_that_dies_shows_in_health(
    server: FakeApiServer,
    engines: list[FakeEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.put("pods", pod_of(engines[0]))
    async with routed(server, tmp_path, monkeypatch) as it:
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "discovery source"]
        task.cancel()
        await until(lambda: it.router.discovery.failed)

        assert await it.get("/health") == (503, {"status": "Service discovery module is down."})
        assert (await ask(it.port, completion()))[0] == 200


async def test_service_is_an_engine(
    server: FakeApiServer,
    engines: list[FakeEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = engines[0]
    port = {"lodestar.ai/port": str(engine.port)}
    named = service("localhost", labels={"model": "llama"}, annotations=port)
    server.put("services", named)
    server.put("endpoints", endpoints("localhost"))
    flags = "--k8s-service-discovery-type service-name"
    async with routed(server, tmp_path, monkeypatch, flags) as it:
        assert it.router.engine_ids == [EngineId(f"localhost:{engine.port}")]
        assert (await ask(it.port, completion()))[0] == 503

        server.put("endpoints", endpoints("localhost", "10.0.0.1"))
        await until(lambda: not it.router.fleet[it.router.engine_ids[0]].holds)

        assert (await ask(it.port, completion()))[0] == 200


async def test_without_credentials_the_router_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    router = Router(parse(["--service-discovery", "k8s", "--port", "0"], {}))

    with pytest.raises(ConfigError, match="no credentials for Kubernetes"):
        await router.start()
    await router.stop(drain_s=0)
