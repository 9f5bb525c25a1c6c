"""Disaggregated prefill in both protocols, on real sockets, where all goes well."""

from typing import Any

import pytest

from lodestar_router.emulator.server_settings import KvConnector
from tests.disaggregated_rig import NIXL, SHARED, at, events, gather, legs
from tests.emulator.server_rig import until

both_protocols = pytest.mark.parametrize("connector", [NIXL, SHARED], ids=str)
CHAT = [{"role": "user", "content": "Tell me about ships. " * 20}]


@both_protocols
async def test_an_answer_is_the_decode_engine_s_and_its_prompt_comes_computed(
    connector: KvConnector,
) -> None:
    async with legs(connector) as it:
        reply = await it.ask("x-request-id: r1", tokens=7, min_tokens=3)

        assert reply.status == 200
        assert reply.headers["content-type"].startswith("application/json")
        assert reply.headers["x-request-id"] == "r1"
        assert reply.json()["usage"]["completion_tokens"] == 7
        assert reply.headers["x-lodestar-engine"] in {at(server) for server in it.decode}
        assert reply.headers["x-lodestar-prefill-engine"] in {at(server) for server in it.prefill}
        assert reply.headers["x-lodestar-cached-tokens"] == "0"
        assert (it.handed_over, it.fetched) == (1, 1)
        assert it.counted("handed_over") == 1
        await until(it.idle)


@both_protocols
async def test_a_chat_is_streamed_as_it_is_written(connector: KvConnector) -> None:
    async with legs(connector) as it:
        reply = await it.ask(
            path="/v1/chat/completions", messages=CHAT, tokens=5, stream=True,
            max_completion_tokens=6, stream_options={"include_usage": True},
        )  # fmt: skip

        assert reply.status == 200
        *chunks, usage = events(reply)
        assert usage["usage"]["completion_tokens"] == 6
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"
        assert (it.handed_over, it.fetched) == (1, 1)


@both_protocols
async def test_many_at_once_are_spread_over_both_roles(connector: KvConnector) -> None:
    async with legs(connector) as it:
        asked = [
            it.ask(prompt=[number + 10] * 200, tokens=300, stream=number % 2 == 0)
            for number in range(24)
        ]

        replies = await gather(*asked)

        assert {reply.status for reply in replies} == {200}
        for role, servers in (("prefill-engine", it.prefill), ("engine", it.decode)):
            sent = [reply.headers[f"x-lodestar-{role}"] for reply in replies]
            for server in servers:
                assert 6 <= sent.count(at(server)) <= 18
        assert it.fetched == 24
        await until(it.idle)


async def test_prefill_goes_where_the_prompt_is_cached() -> None:
    async with legs() as it:
        first = await it.ask(prompt=[9] * 320)
        engine = first.headers["x-lodestar-prefill-engine"]
        others = [await it.ask(prompt=[9] * 320 + [number]) for number in range(20, 26)]

        assert {reply.headers["x-lodestar-prefill-engine"] for reply in others} == {engine}
        assert {reply.headers["x-lodestar-cached-tokens"] for reply in others} == {"320"}
        # vLLM's decode engine reports what the prefill engine had found.
        details = others[0].json()["usage"]["prompt_tokens_details"]
        assert details["cached_tokens"] == 320


async def test_both_choices_are_explained() -> None:
    async with legs() as it:
        reply = await it.ask("x-request-id: r7", stream=True, tokens=3)

        decode, prefill = await it.get("/debug/decisions?request_id=r7")

        assert [decode["leg"], prefill["leg"]] == ["decode", "prefill"]
        assert decode["engine"] == reply.headers["x-lodestar-engine"]
        assert prefill["engine"] == reply.headers["x-lodestar-prefill-engine"]
        assert (prefill["policy"], decode["policy"]) == ("lodestar", "decode_load")
        assert len(prefill["candidates"]) == len(decode["candidates"]) == 2
        assert prefill["excluded"] == {at(s): "takes the decode leg only" for s in it.decode}
        assert {one["cached_prefix_tokens"] for one in decode["candidates"]} == {99}


async def test_each_leg_is_timed_by_itself_and_the_client_s_wait_once() -> None:
    async with legs() as it:
        reply = await it.ask(stream=True, tokens=3)
        prefill, decode = (reply.headers[f"x-lodestar-{e}"] for e in ("prefill-engine", "engine"))
        shown = {entry["leg"]: entry for entry in await it.get("/debug/decisions")}
        value = it.router.metrics.registry.get_sample_value

        label_s = shown["prefill"]["ttft_s"]
        assert value("lodestar:prefill_seconds_sum", {"engine": prefill}) == label_s
        waited_s = value("lodestar:time_to_first_token_seconds_sum", {"engine": decode})
        assert waited_s is not None
        assert waited_s >= label_s + shown["decode"]["ttft_s"]
        assert value("lodestar:time_to_first_token_seconds_count", {"engine": prefill}) is None
        assert shown["prefill"]["output_tokens"] is None
        assert shown["decode"]["output_tokens"] == 3


async def test_prefill_is_learned_from_requests_that_are_not_streamed_too() -> None:
    async with legs() as it:
        await it.ask()
        decode, prefill = await it.get("/debug/decisions")

        assert (decode["leg"], decode["ttft_s"]) == ("decode", None)
        assert prefill["ttft_s"] > 0
        assert prefill["candidates"][0]["predicted_ttft_s"] > 0


async def test_a_trial_of_the_learned_policy_is_about_prefill() -> None:
    async with legs(flags="--policy-mode shadow --policy-fallback lmetric") as it:
        await it.ask()
        decode, prefill = await it.get("/debug/decisions")
        value = it.router.metrics.registry.get_sample_value

        assert (prefill["policy"], prefill["arm"], decode["arm"]) == ("lmetric", "fallback", None)
        counted = value("lodestar:arm_time_to_first_token_seconds_count", {"arm": "fallback"})
        assert counted == 1


async def test_what_generates_nothing_has_no_legs() -> None:
    async with legs() as it:
        client = await it.send(path="/tokenize", prompt="hello")
        reply = await client.reply()

        assert reply.status == 200
        assert reply.headers["x-lodestar-engine"] in {at(server) for server in it.decode}
        assert it.fetched == 0


@pytest.mark.parametrize(
    "fields", [{"n": 2}, {"prompt": ["one", "two"]}], ids=["two-answers", "two-prompts"]
)
async def test_more_than_one_sequence_is_not_handed_over(fields: dict[str, Any]) -> None:
    async with legs(strict=False) as it:
        reply = await it.ask(**fields)

        assert reply.status == 200
        assert len(reply.json()["choices"]) == 2
        assert reply.headers["x-lodestar-prefill-skipped"] == "several_sequences"


async def test_the_refusal_of_a_request_is_the_client_s_answer() -> None:
    async with legs() as it:
        client = await it.send(temperature=-1)
        refused = await client.reply()

        assert refused.status == 400
        assert refused.headers["content-type"].startswith("application/json")
        assert "temperature must be non-negative" in refused.json()["error"]["message"]
        # The connection is as good as new.
        await client.send(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.reply()).status == 200
        await until(it.idle)


async def test_an_engine_that_is_named_does_it_all() -> None:
    async with legs(strict=False) as it:
        reply = await it.ask(path=f"/v1/completions?id={at(it.prefill[1])}")

        assert reply.headers["x-lodestar-engine"] == at(it.prefill[1])
        assert reply.json()["usage"]["completion_tokens"] == 4


async def test_a_heuristic_takes_turns_in_each_role() -> None:
    async with legs(flags="--pd-policy roundrobin") as it:
        replies = [await it.ask() for _ in range(4)]

        for name in ("x-lodestar-prefill-engine", "x-lodestar-engine"):
            first, second, third, fourth = (reply.headers[name] for reply in replies)
            assert first == third != second == fourth


@both_protocols
async def test_a_request_has_a_line_for_each_leg(connector: KvConnector) -> None:
    async with legs(connector) as it:
        lines = it.written()
        reply = await it.ask("x-request-id: r1")

        targets = [reply.headers[f"x-lodestar-{e}"] for e in ("prefill-engine", "engine")]
        assert [line.partition(" at ")[0] for line in lines] == [
            f"Routing request r1 with session id None to http://{target}" for target in targets
        ]
