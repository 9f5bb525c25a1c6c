"""Requests of the router's own on the way of all others."""

import asyncio

import pytest

from lodestar_router.errors import EngineError
from lodestar_router.proxy.client_connection import ClientConnection
from lodestar_router.proxy.inner_client import InnerAnswer, ask
from lodestar_router.proxy.messages import Request
from lodestar_router.proxy.request_reader import Limits
from tests.fake_engine import FakeEngine
from tests.proxy.harness import Edge, completion, edge_before, post, until

LIMITS = Limits(body_bytes=10_000)


async def inner(edge: Edge, request: bytes, most_bytes: int = 100_000) -> InnerAnswer:
    return await ask(edge.routes, request, LIMITS, most_bytes=most_bytes)


@pytest.mark.parametrize("behaviour", ["answer", "until_close"])
async def test_an_answer_comes_whole_whatever_its_framing(behaviour: str) -> None:
    engine = await FakeEngine().start()
    engine.behaviour = behaviour
    async with edge_before(engine) as edge:
        answer = await inner(edge, post("/v1/completions", completion(), "X-Request-Id: mine"))

        assert answer.status == 200
        assert b"choices" in answer.body
        assert answer.header(b"x-lodestar-engine") == b"e0"
        assert answer.header(b"x-request-id") == b"mine"
        await until(lambda: edge.inflight() == 0)
        assert edge.counted("requests", engine="e0", ending="completed") == 1
    await engine.stop()


async def test_a_chunked_stream_comes_without_its_framing() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        answer = await inner(edge, post("/v1/completions", completion(stream=True)))

        assert answer.body.startswith(b"data: {")
        assert answer.body.endswith(b"data: [DONE]\n\n")
    await engine.stop()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(post("/v1/completions", {"model": "other"}), 404, id="router-s-own-error"),
        pytest.param(post("/v1/completions", b"x" * 20_000), 413, id="too-large"),
        pytest.param(b"nonsense\r\n\r\n", 400, id="no-http"),
    ],
)
async def test_refusals_are_answers(request_bytes: bytes, status: int) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        assert (await inner(edge, request_bytes)).status == status
    await engine.stop()


async def test_an_answer_that_is_too_large_is_given_up_and_its_engine_is_told() -> None:
    engine = await FakeEngine().start()
    engine.gap_s, engine.tokens = 0.02, 500
    async with edge_before(engine) as edge:
        with pytest.raises(EngineError, match="too large"):
            await inner(edge, post("/v1/completions", completion(stream=True)), most_bytes=200)

        await until(lambda: engine.aborted == 1)
        assert edge.inflight() == 0
    await engine.stop()


async def test_a_call_that_is_cancelled_aborts_its_request() -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 5.0
    async with edge_before(engine) as edge:
        call = asyncio.get_running_loop().create_task(
            inner(edge, post("/v1/completions", completion()))
        )
        await until(lambda: bool(engine.requests))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        await until(lambda: engine.aborted == 1)
        assert edge.inflight() == 0
    await engine.stop()


async def test_an_engine_that_breaks_its_answer_is_an_error() -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 0.2
    async with edge_before(engine) as edge:
        call = asyncio.get_running_loop().create_task(
            inner(edge, post("/v1/completions", completion(stream=True)))
        )
        await until(lambda: bool(engine.requests))
        await asyncio.sleep(0.1)
        await engine.stop()

        with pytest.raises(EngineError, match="cut off"):
            await call
    await engine.stop()


async def test_a_bug_leaves_no_client_waiting(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: Request, client: ClientConnection) -> None:
        raise ZeroDivisionError

    with pytest.raises(EngineError, match="cut off"):
        await ask(broken, post("/v1/completions", completion()), LIMITS, most_bytes=1000)

    assert "ZeroDivisionError" in caplog.text
