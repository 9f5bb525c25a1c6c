"""An open circuit is seen wherever somebody would look for the reason."""

import asyncio

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from tests.misbehaving_engine import MisbehavingEngine, answers, well
from tests.proxy.harness import RawClient, completion, get, post


async def page(port: int, path: str) -> bytes:
    client = await RawClient.to(port)
    await client.send(get(path))
    body = (await client.reply()).body
    await client.close()
    return body


async def test_circuit_is_in_engines_metrics_and_explanations() -> None:
    broken = await MisbehavingEngine(answers(500)).start()
    other = await MisbehavingEngine(well).start()
    flags = "--port 0 --host 127.0.0.1 --no-trainer --circuit-failures 2 --circuit-open 60"
    router = Router(
        parse(["--engines", broken.url, other.url, "--routing-logic", "random", *flags.split()], {})
    )
    port = await router.start()
    try:
        open_id = router.engine_ids[0]
        while router.fleet[open_id].circuit.clear:
            client = await RawClient.to(port)
            await client.send(post("/v1/completions", completion()))
            await client.reply()
            await client.close()
        client = await RawClient.to(port)
        await client.send(post("/v1/completions", completion(), "x-request-id: last"))
        await client.reply()
        await client.close()

        engines = await page(port, "/engines")
        metrics = (await page(port, "/metrics")).decode()
        decision = await page(port, "/debug/decisions?request_id=last")
    finally:
        await router.stop(drain_s=0.1)
        await asyncio.gather(broken.stop(), other.stop())

    why = b"2 failures in a row, the last: it answered 500"
    assert b'"state":"open","reason":"' + why in engines
    assert f'lodestar:circuit_state{{engine="{open_id}"}} 3.0' in metrics
    assert f'lodestar:circuit_openings{{engine="{open_id}"}} 1.0' in metrics
    assert b'"circuit":"closed"' in decision
    assert b'"excluded":{"' + open_id.encode() + b'":"circuit open: ' + why in decision
