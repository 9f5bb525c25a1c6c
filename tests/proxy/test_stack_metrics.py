"""production-stack's counters: true, and gone with what they count."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from lodestar_router.core.types import EngineId
from lodestar_router.proxy.stack_metrics import OTHER_MODELS, StackMetrics
from tests.fake_engine import FakeEngine
from tests.proxy.harness import Edge, completion, edge_before, post, until


def value(edge: Edge, name: str, **labels: str) -> float:
    return edge.metrics.registry.get_sample_value(f"vllm:{name}", labels) or 0.0


async def ask(edge: Edge, **fields: Any) -> int:
    client = await edge.client()
    await client.send(post("/v1/completions", completion(**fields)))
    return (await client.reply()).status


@pytest.mark.parametrize(
    ("fields", "reports_usage", "tokens"),
    [
        pytest.param({}, True, (7, 3), id="whole-answer"),
        pytest.param({"stream": True}, True, (7, 3), id="stream"),
        pytest.param({"stream": True}, False, (0, 3), id="stream-that-tells-nothing"),
    ],
)
async def test_tokens_are_counted_in_whole_answers_and_streams(
    fields: dict[str, Any], reports_usage: bool, tokens: tuple[int, int]
) -> None:
    engine = await FakeEngine().start()
    engine.reports_usage = reports_usage
    async with edge_before(engine) as edge:
        for _ in range(2):
            assert await ask(edge, **fields) == 200
        own = {"server": engine.url, "model": "tiny"}
        await until(lambda: value(edge, "output_tokens_total", **own) == 2 * tokens[1])

        assert value(edge, "input_tokens_total", **own) == 2 * tokens[0]
        assert value(edge, "request_latency_seconds_count", **own, status="success") == 2
        assert value(edge, "request_latency_seconds_count", **own, status="error") == 0
    await engine.stop()


async def test_attempts_that_break_are_counted_by_what_was_wrong() -> None:
    engine = await FakeEngine().start()
    engine.behaviour = "reset"
    async with edge_before(engine) as edge:
        assert await ask(edge) == 502
        engine.behaviour = "error"
        assert await ask(edge) == 500

        own = {"server": engine.url, "model": "tiny"}
        assert value(edge, "request_errors_total", **own, error_type="EngineError") == 1
        assert value(edge, "request_latency_seconds_count", **own, status="error") == 2
    await engine.stop()


async def test_client_that_leaves_is_neither_success_nor_error() -> None:
    engine = await FakeEngine().start()
    engine.tokens, engine.gap_s = 100, 0.02
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(post("/v1/completions", completion(stream=True)))
        await client.head()
        await client.close()
        await until(lambda: edge.inflight() == 0)

        own = {"server": engine.url, "model": "tiny"}
        for status in ("success", "error"):
            assert value(edge, "request_latency_seconds_count", **own, status=status) == 0
    await engine.stop()


async def test_requests_that_find_no_engine_are_counted_too() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        await ask(edge)
        edge.fleet.mark_down(EngineId("e0"), "gone", 0.0)
        assert await ask(edge) == 503
        assert await ask(edge, model="never-heard-of") == 404
        assert await ask(edge, model=7) == 400

        assert value(edge, "num_incoming_requests_total", model="tiny") == 2
        assert value(edge, "num_incoming_requests_total", model="never-heard-of") == 1
    await engine.stop()


def test_clients_cannot_make_series_without_end() -> None:
    registry = CollectorRegistry()
    metrics = StackMetrics(registry, 60.0)

    for number in range(150):
        metrics.incoming(f"made-up-{number}", known=False)
    metrics.incoming("made-up-7", known=False)
    metrics.incoming("served", known=True)

    def counted(model: str) -> float | None:
        return registry.get_sample_value("vllm:num_incoming_requests_total", {"model": model})

    assert counted(OTHER_MODELS) == 50
    assert counted("made-up-7") == 2
    assert counted("made-up-149") is None
    assert counted("served") == 1


async def test_engine_that_left_leaves_nothing_behind() -> None:
    engines = [await FakeEngine().start() for _ in range(2)]
    async with edge_before(*engines) as edge:
        for _ in range(4):
            await ask(edge)
        engines[0].behaviour = engines[1].behaviour = "reset"
        await ask(edge)
        await asyncio.sleep(0)
        assert engines[0].url.encode() in edge.metrics.exposition()

        edge.metrics.forget(EngineId("e0"))

        page = edge.metrics.exposition()
        assert engines[0].url.encode() not in page
        assert engines[1].url.encode() in page
        assert edge.metrics.stack.recent(EngineId("e0")) is None
    for engine in engines:
        await engine.stop()
