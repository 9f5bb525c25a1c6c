"""How a running router ends and reads its settings anew: a real process, real signals."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, get, stream_request
from tests.router_process import RouterProcess, router_process

ROUNDROBIN = ("--routing-logic", "roundrobin")


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    """An engine whose streams take 2 s."""
    engine = await FakeEngine().start()
    engine.tokens, engine.gap_s = 20, 0.1
    yield engine
    await engine.stop()


@asynccontextmanager
async def streaming(router: RouterProcess) -> AsyncIterator[RawClient]:
    """A client in the middle of a stream."""
    client = await RawClient.to(router.port)
    await client.send(stream_request())
    await client.head()
    yield client
    await client.close()


async def rest_of(client: RawClient) -> bytes:
    return b"".join([chunk async for chunk in client.chunks()])


async def test_sigterm_takes_readiness_then_the_port_and_lets_streams_end(
    engine: FakeEngine,
) -> None:
    flags = ("--engines", engine.url, *ROUNDROBIN, "--drain-delay", "1.2")
    async with router_process(*flags) as router, streaming(router) as client:
        kept = await RawClient.to(router.port)
        assert (await router.get("/ready")).status == 200

        router.signal(signal.SIGTERM)
        await router.said("stopping")
        readiness = [(await router.get(path)).status for path in ("/ready", "/health")]
        await kept.send(get("/v1/models"))
        last = await kept.reply()
        kept_is_closed = await kept.closed()
        body = await rest_of(client)

        assert readiness == [503, 503]
        assert (last.status, kept_is_closed) == (200, True)
        assert body.endswith(b"data: [DONE]\n\n")
        assert await router.exit_code() == 0
        assert await router.refuses_connections()
        await kept.close()


async def test_the_port_is_closed_while_streams_still_run(engine: FakeEngine) -> None:
    flags = ("--engines", engine.url, *ROUNDROBIN, "--drain-delay", "0")
    async with router_process(*flags) as router, streaming(router) as client:
        router.signal(signal.SIGTERM)
        await router.said("stopping")
        while not await router.refuses_connections():
            await asyncio.sleep(0.02)

        assert not client.reader.at_eof()
        assert (await rest_of(client)).endswith(b"data: [DONE]\n\n")
        assert await router.exit_code() == 0


async def test_what_runs_longer_than_the_drain_is_told_why_it_ends(engine: FakeEngine) -> None:
    engine.tokens = 1000
    flags = ("--engines", engine.url, *ROUNDROBIN, "--drain-timeout", "0.5", "--drain-delay", "0")
    async with router_process(*flags) as router, streaming(router) as client:
        router.signal(signal.SIGTERM)
        body = await asyncio.wait_for(client.reader.read(), 10)

        assert b"event: error\n" in body
        assert b"the router is stopping" in body
        assert b"[DONE]" not in body
        assert await router.exit_code() == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"]
)
async def test_a_second_signal_ends_it_at_once(
    engine: FakeEngine, number: signal.Signals, code: int
) -> None:
    engine.tokens = 1000
    flags = ("--engines", engine.url, *ROUNDROBIN)
    async with router_process(*flags) as router, streaming(router):
        router.signal(signal.SIGTERM)
        await router.said("stopping")

        router.signal(number)
        async with asyncio.timeout(8):  # the drain alone would take 25
            ended = await router.exit_code()

        assert ended == code


async def test_sighup_reads_the_settings_anew_and_drops_no_stream(
    engine: FakeEngine, tmp_path: Path
) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(f"engines: {engine.url}\nrouting-logic: roundrobin\n")
    async with router_process("--config", str(path)) as router, streaming(router) as client:
        path.write_text(f"engines: {engine.url}\nrouting-logic: lmetric\n")
        router.signal(signal.SIGHUP)
        await router.said("the settings were read anew")

        now = json.loads((await router.get("/debug/config")).body)["routing_logic"]
        path.write_text("routing-logic: [")
        router.signal(signal.SIGHUP)
        await router.said("the configuration stays as it was")

        assert now == "lmetric"
        assert (await rest_of(client)).endswith(b"data: [DONE]\n\n")
        assert (await router.get("/health")).status == 200
