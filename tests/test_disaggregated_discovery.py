"""Roles as discovery tells them, and as settings change."""

from pathlib import Path

import pytest

from tests.discovery.fake_api import FakeApiServer
from tests.fake_engine import FakeEngine
from tests.proxy.harness import completion
from tests.test_assembly import ask, until
from tests.test_dynamic_config import changing
from tests.test_kubernetes_router import pod_of, routed

LOGIC = "--routing-logic disaggregated_prefill --pd-policy roundrobin"
LABELS = "--prefill-model-labels llama-prefill --decode-model-labels llama-decode"


async def started(count: int) -> list[FakeEngine]:
    return [await FakeEngine().start() for _ in range(count)]


async def test_pods_roles_are_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await FakeApiServer().start()
    prefill, decode, late = engines = await started(3)
    server.put("pods", pod_of(prefill, "p", labels={"model": "llama-prefill"}))
    server.put("pods", pod_of(decode, "d", labels={"model": "llama-decode"}))
    flags = f"{LOGIC} {LABELS} --k8s-label-selector environment=test"
    async with routed(server, tmp_path, monkeypatch, flags) as it:
        await until(lambda: it.up(prefill, decode))
        first = (await ask(it.port, completion()))[1]

        server.put("pods", pod_of(late, "l", labels={"model": "llama-decode"}))
        server.delete("pods", "d")
        await until(lambda: it.up(prefill, late))
        second = (await ask(it.port, completion()))[1]

        for reply, engine in ((first, decode), (second, late)):
            assert reply["x-lodestar-prefill-engine"] == prefill.url.removeprefix("http://")
            assert reply["x-lodestar-engine"] == engine.url.removeprefix("http://")
    await server.stop()
    for engine in engines:
        await engine.stop()


async def test_legs_come_and_go_with_the_settings(tmp_path: Path) -> None:
    prefill, decode = await started(2)
    backends = {
        "static_backends": f"{prefill.url},{decode.url}",
        "static_model_labels": "p,d",
        "prefill_model_labels": "p",
        "decode_model_labels": "d",
    }
    async with changing(tmp_path, **backends, routing_logic="roundrobin") as it:
        headers = [(await ask(it.port, completion()))[1] for _ in range(2)]
        assert all("x-lodestar-prefill-engine" not in each for each in headers)

        assert await it.change(**backends, routing_logic="disaggregated_prefill")
        _, legs = await ask(it.port, completion())
        assert legs["x-lodestar-prefill-engine"] == prefill.url.removeprefix("http://")

        turned = {**backends, "prefill_model_labels": "d", "decode_model_labels": "p"}
        assert await it.change(**turned, routing_logic="disaggregated_prefill")
        _, legs = await ask(it.port, completion())
        assert legs["x-lodestar-prefill-engine"] == decode.url.removeprefix("http://")
        shown = (await it.get("/health"))["dynamic_config"]
        assert shown["prefill_model_labels"] == "d"

        assert await it.change(**backends, routing_logic="roundrobin")
        assert "x-lodestar-prefill-engine" not in (await ask(it.port, completion()))[1]
    await prefill.stop()
    await decode.stop()
