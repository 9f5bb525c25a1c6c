"""Engines that break at random and clients that leave at random: nothing stays behind."""

import asyncio
from random import Random

import pytest

from lodestar_router.core.circuit import CircuitSettings
from lodestar_router.proxy.deadlines import Timeouts
from tests.misbehaving_engine import (
    Exchange,
    MisbehavingEngine,
    answers,
    breaks_its_framing,
    breaks_mid_event,
    breaks_mid_stream,
    closes_kept_alive,
    fails_in_its_stream,
    hangs,
    head_then_hangs,
    head_without_end,
    resets,
    says_garbage,
    sends_too_little,
    sends_too_much,
    stalls_mid_stream,
    well,
)
from tests.proxy.harness import Edge, completion, edge_before, post, until

BEHAVIOURS = (
    *[well] * 12, answers(500), answers(502), answers(503), answers(429, "retry-after: 1"),
    breaks_its_framing, breaks_mid_event, breaks_mid_stream, closes_kept_alive,
    fails_in_its_stream, hangs, head_then_hangs, head_without_end, resets, says_garbage,
    sends_too_little, sends_too_much, stalls_mid_stream,
)  # fmt: skip

TIMEOUTS = Timeouts(connect_s=1.0, first_byte_s=0.5, idle_s=0.5, total_s=3.0, head_s=0.5)


async def ask(edge: Edge, rng: Random) -> None:
    """One request; a third of the clients leave before its end.

    Raises:
        TimeoutError: the router never ended it.
    """
    client = await edge.client()
    body = completion(stream=rng.random() < 0.6)
    version = "1.0" if rng.random() < 0.1 else "1.1"
    leaves_after_s = rng.random() * 0.4 if rng.random() < 0.33 else None
    await client.send(post("/v1/completions", body, "Connection: close", version=version))
    try:
        async with asyncio.timeout(leaves_after_s or 15.0):
            await client.reader.read()
    except ConnectionResetError:
        return
    except TimeoutError:
        if leaves_after_s is None:
            raise
        client.writer.transport.abort()


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_stays_behind(seed: int) -> None:
    rng = Random(seed)

    async def at_random(exchange: Exchange) -> None:
        await rng.choice(BEHAVIOURS)(exchange)

    engines = [await MisbehavingEngine(at_random).start() for _ in range(3)]
    circuits = CircuitSettings(failures_in_a_row=3, open_s=0.1, open_max_s=0.4)
    async with edge_before(*engines, timeouts=TIMEOUTS, circuits=circuits, hang_s=0.4) as edge:

        async def client() -> None:
            for _ in range(15):
                await ask(edge, rng)

        async with asyncio.timeout(40):
            await asyncio.gather(*(client() for _ in range(16)))
        await until(lambda: not edge.inflight() and not edge.server.connections)

        assert not any(pool.busy for pool in edge.pools.values())
        assert len(edge.recorder.outcomes) >= len(edge.recorder.decisions) > 240
        # Whatever happened, an engine that is well is used again.
        for engine in engines:
            engine.behave = well
        async with asyncio.timeout(10):
            while any(edge.circuit(number).state != "closed" for number in range(3)):
                assert (await edge.ask()).status == 200
                await asyncio.sleep(0.02)
    for engine in engines:
        await engine.stop()
