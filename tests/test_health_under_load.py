"""A router with far more work than time still says how it is: a process of its own."""

import time
from statistics import median

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
