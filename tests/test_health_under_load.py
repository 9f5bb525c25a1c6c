"""A router with far more work than time still says how it is: a process of its own."""

import asyncio
import time
from statistics import median

from perf.soak.flooded import flood_process, watch_health
from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, completion, post
from tests.router_process import router_process

CLIENTS, REQUESTS = 60, 100  # each a page of routing work, all at once


async def test_health_is_answered_within_a_second_at_any_load() -> None:
    engine = await FakeEngine().start()
    flags = ("--engines", engine.url, "--routing-logic", "roundrobin")
    async with router_process(*flags) as router:
        body = completion(prompt="x" * 2000) | {"model": "unknown"}
        clients = [await RawClient.to(router.port) for _ in range(CLIENTS)]
        for client in clients:
            client.writer.write(post("/v1/completions", body) * REQUESTS)

        delays_s = []
        for _ in range(5):
            began_s = time.monotonic()
            assert (await router.get("/health")).status == 200
            delays_s.append(time.monotonic() - began_s)
        answered = [[(await client.reply()).status for _ in range(REQUESTS)] for client in clients]
        for client in clients:
            await client.close()

        assert median(delays_s) < 1.0
        assert {status for statuses in answered for status in statuses} <= {404, 503}
    await engine.stop()


async def test_health_is_answered_within_a_second_while_a_crowd_connects_without_end() -> None:
    engine = await FakeEngine().start()
    flags = ("--engines", engine.url, "--max-concurrent", "2", "--queue-depth", "8")
    async with router_process(*flags, "--routing-logic", "roundrobin") as router:
        with flood_process(router.port, 5.0, most_open=3000) as flood:
            health = await asyncio.to_thread(watch_health, router.port, 4.0)
            await asyncio.to_thread(flood.wait)
        clients_left = await router.get("/health")

        assert not health.failures
        assert len(health.delays_s) > 10
        assert health.quantile_s(0.9) < 1.0
        assert clients_left.status == 200
    await engine.stop()
