"""The objective of the operator and of a request, over sockets."""

from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, completion, post
from tests.test_assembly import router_before
from tests.test_trial import fetch


async def test_a_request_s_own_objective_is_what_it_is_routed_for() -> None:
    engine = await FakeEngine().start()
    async with router_before(engine, flags="--no-trainer --objective e2e") as (_, port):
        client = await RawClient.to(port)
        headers = ["", "X-Lodestar-Objective: tpot", "X-Lodestar-TTFT-SLO-ms: 250"]
        for header in headers:
            given = [header] if header else []
            await client.send(post("/v1/completions", completion(stream=True), *given))
            assert (await client.reply()).status == 200
        await client.send(post("/v1/completions", completion(), "X-Lodestar-Objective: speed"))
        refused = await client.reply()
        await client.close()

        decisions = await fetch(port, "/debug/decisions")

        assert refused.status == 400
        assert "x-lodestar-objective" in refused.json()["error"]["message"]
        goals = [decision["goal"] for decision in reversed(decisions)]
        assert [goal["objective"] for goal in goals] == ["e2e", "tpot", "goodput"]
        assert goals[2]["ttft_slo_s"] == 0.25
        assert all(decision["output_tokens"] == 3 for decision in decisions)
        assert all(decision["candidates"][0]["predicted_tpot_s"] > 0 for decision in decisions)
    await engine.stop()
