"""The whole router, wired as in production, in front of fake engines."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from lodestar_router.errors import ConfigError
from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, completion, get, post


@asynccontextmanager
async def router_before(*engines: FakeEngine, flags: str = "") -> AsyncIterator[tuple[Router, int]]:
    argv = ["--engines", *(engine.url for engine in engines), "--port", "0", "--host", "127.0.0.1"]
    router = Router(parse([*argv, "--metrics-interval", "0.05", "--seed", "1", *flags.split()], {}))
    try:
        yield router, await router.start()
    finally:
        await router.stop(drain_s=0.5)


async def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + limit_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come to that"
        await asyncio.sleep(0.01)


async def ask(port: int, body: object, path: str = "/v1/completions") -> tuple[int, dict[str, str]]:
    client = await RawClient.to(port)
    await client.send(post(path, body))
    reply = await client.reply()
    await client.close()
    return reply.status, reply.headers


async def test_load_and_capacity_are_polled_and_shown_with_their_age() -> None:
    engine = await FakeEngine().start()
    async with router_before(engine, flags="--no-trainer") as (router, port):
        await until(lambda: router.fleet[router.engine_ids[0]].load is not None)
        client = await RawClient.to(port)

        await client.send(get("/engines"))
        (shown,) = (await client.reply()).json()
        await client.close()

        assert shown["up"]
        assert shown["version"] == "0.32.0"
        assert shown["load"]["num_waiting_reqs"] == 2
        assert 0 <= shown["load"]["age_s"] < 5
        assert (shown["kv_blocks"], shown["block_size_tokens"]) == (64, 16)
        assert shown["prefix_view"] == "approximate"
    await engine.stop()


async def test_engine_that_is_down_at_start_is_shown_down_and_joins_later() -> None:
    there, late = await FakeEngine().start(), await FakeEngine().start()
    await late.stop()
    async with router_before(there, late, flags="--no-trainer") as (router, port):
        _, missing = router.engine_ids
        assert not router.fleet[missing].up
        assert "refuse" in router.fleet[missing].reason or "connect" in router.fleet[missing].reason
        assert (await ask(port, completion()))[0] == 200

        await late.start()
        await until(lambda: router.fleet[missing].up)

        engines = {(await ask(port, completion()))[1]["x-lodestar-engine"] for _ in range(20)}
        assert len(engines) == 2
    await there.stop()
    await late.stop()


async def test_engine_that_dies_is_left_out_and_taken_back() -> None:
    stays, dies = await FakeEngine().start(), await FakeEngine().start()
    async with router_before(stays, dies, flags="--no-trainer") as (router, port):
        dying = router.engine_ids[1]

        await dies.stop()
        statuses = [(await ask(port, completion()))[0] for _ in range(10)]
        await until(lambda: not router.fleet[dying].up)
        await dies.start()
        await until(lambda: router.fleet[dying].up)

        assert statuses == [200] * 10
    await stays.stop()
    await dies.stop()


async def test_engines_with_different_models_under_one_name_stop_the_start() -> None:
    one, other = await FakeEngine().start(), await FakeEngine(root="/models/other").start()

    with pytest.raises(ConfigError, match="different models under the name 'tiny'"):
        async with router_before(one, other):
            pass
    async with router_before(one, other, flags="--allow-mixed-models --no-trainer") as (router, _):
        assert all(state.up for state in router.fleet)

    await one.stop()
    await other.stop()


async def test_slow_metrics_of_one_engine_delay_no_other() -> None:
    quick, slow = await FakeEngine().start(), await FakeEngine().start()
    async with router_before(quick, slow, flags="--no-trainer") as (router, port):
        slow.metrics_delay_s = 60.0
        await asyncio.sleep(0.5)

        client = await RawClient.to(port)
        await client.send(get("/engines"))
        shown_quick, shown_slow = (await client.reply()).json()
        await client.close()

        assert shown_quick["load"]["age_s"] < 0.4
        assert shown_slow["load"]["age_s"] > 0.4
        assert all(state.up for state in router.fleet)
        assert (await ask(port, completion()))[0] == 200
    await quick.stop()
    await slow.stop()


async def test_every_ending_is_in_the_decision_log() -> None:
    engine = await FakeEngine().start()
    async with router_before(engine, flags="--no-trainer") as (_, port):
        await ask(port, completion(stream=True))
        engine.behaviour = "error"
        await ask(port, completion())

        client = await RawClient.to(port)
        await client.send(get("/debug/decisions?limit=2"))
        newest, first = (await client.reply()).json()
        await client.close()

        assert (first["ending"], newest["ending"]) == ("completed", "rejected")
        assert first["ttft_s"] > 0
        assert newest["ttft_s"] is None
        assert first["candidates"][0]["predicted_ttft_s"] > 0
    await engine.stop()


async def test_prefix_affinity_without_events_follows_what_was_sent() -> None:
    engines = [await FakeEngine().start() for _ in range(3)]
    prompt = list(range(100))
    async with router_before(*engines, flags="--no-trainer") as (_, port):
        replies = [
            (await ask(port, completion(prompt=[*prompt, number])))[1] for number in range(5)
        ]

        assert len({reply["x-lodestar-engine"] for reply in replies}) == 1
        assert [reply["x-lodestar-cached-tokens"] for reply in replies] == ["0", *["96"] * 4]
    for engine in engines:
        await engine.stop()


async def test_traffic_trains_a_model_that_the_router_then_serves() -> None:
    engine = await FakeEngine().start()
    async with router_before(engine) as (router, port):
        for number in range(64):
            await ask(port, completion(prompt=[number] * (1 + 7 * number), stream=True))

        await until(lambda: router.steering.served_model is not None, limit_s=40.0)

        status, headers = await ask(port, completion(prompt=[1, 2, 3], stream=True))
        assert status == 200
        assert float(headers["x-lodestar-predicted-ttft-ms"]) < 25.0  # learned: the prior says 30
        assert router.steering.trainer is not None
        assert router.steering.trainer.counters.rows_dropped == 0
    await engine.stop()


async def test_dead_trainer_is_restarted_and_routing_never_notices() -> None:
    engine = await FakeEngine().start()
    async with router_before(engine) as (router, port):
        trainer = router.steering.trainer
        assert trainer is not None
        await until(lambda: trainer.pid is not None)

        assert trainer.pid is not None
        os.kill(trainer.pid, signal.SIGKILL)
        statuses = [(await ask(port, completion(stream=True)))[0] for _ in range(20)]
        await until(lambda: trainer.counters.starts == 2)

        assert statuses == [200] * 20
    await engine.stop()
