"""The learned policy on trial, over sockets: who steers, what it learns, what is shown."""

from typing import Any

from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, completion, get
from tests.test_assembly import ask, router_before, until

SHADOW = "--policy-mode shadow --policy-fallback least_request"


async def fetch(port: int, path: str) -> Any:
    client = await RawClient.to(port)
    await client.send(get(path))
    reply = await client.reply()
    await client.close()
    return reply.body.decode() if path == "/metrics" else reply.json()


async def test_in_the_shadow_the_fallback_steers_though_the_learned_policy_would_not() -> None:
    """Every prompt is cached on one engine; least request spreads them all the same."""
    engines = [await FakeEngine().start() for _ in range(2)]
    prompt = list(range(1000))
    async with router_before(*engines, flags=f"--no-trainer {SHADOW}") as (_, port):
        headers = [
            (await ask(port, completion(prompt=[*prompt, n], stream=True)))[1] for n in range(12)
        ]

        decisions = await fetch(port, "/debug/decisions?limit=12")
        metrics = await fetch(port, "/metrics")

        assert {reply["x-lodestar-policy"] for reply in headers} == {"least_request"}
        assert len({reply["x-lodestar-engine"] for reply in headers}) == 2
        assert "fallback" in {reply["x-lodestar-reason"] for reply in headers}
        assert all("x-lodestar-predicted-ttft-ms" in reply for reply in headers)
        differing = [d for d in decisions if d["other"]["engine"] != d["engine"]]
        assert differing
        assert {d["other"]["policy"] for d in decisions} == {"lodestar"}
        assert all(d["candidates"][0]["predicted_ttft_s"] > 0 for d in decisions)
        counted = 'lodestar:arm_time_to_first_token_seconds_count{arm="fallback"} 12.0'
        assert counted in metrics
        differs = 'agreement="differs",arm="fallback",policy="least_request"'
        assert f"lodestar:arm_decisions_total{{{differs}}} {len(differing)}.0" in metrics
    for engine in engines:
        await engine.stop()


async def test_in_the_shadow_the_trainer_gets_every_row() -> None:
    engine = await FakeEngine().start()
    async with router_before(engine, flags=SHADOW) as (router, port):
        for number in range(5):
            await ask(port, completion(prompt=[number] * 20, stream=True))

        trainer = router.steering.trainer
        assert trainer is not None
        await until(lambda: trainer.counters.rows_offered == 5)
    await engine.stop()


async def test_a_canary_splits_requests_between_both_policies() -> None:
    engine = await FakeEngine().start()
    flags = "--no-trainer --policy-canary 50% --policy-fallback least_request"
    async with router_before(engine, flags=flags) as (_, port):
        for _ in range(40):
            await ask(port, completion(stream=True))

        decisions = await fetch(port, "/debug/decisions?limit=40")

        by_arm = {(decision["arm"], decision["policy"]) for decision in decisions}
        assert by_arm == {("learned", "lodestar"), ("fallback", "least_request")}
    await engine.stop()
