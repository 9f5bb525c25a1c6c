"""Emulated prefill and decode engines: what they refuse, and what a fetched prompt costs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import aiohttp
import pytest
from msgspec import structs

from lodestar_router.core.kv_events import BlockStored
from lodestar_router.emulator.cli import parse
from lodestar_router.emulator.server import EmulatedServer
from lodestar_router.emulator.server_settings import KvConnector, KvRole, KvTransfer
from lodestar_router.errors import ConfigError
from tests.emulator.factories import engine, request, steps
from tests.emulator.server_rig import MODEL, Answer, serving, settings

ASKED = {
    "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None,
    "remote_block_ids": None, "remote_host": None, "remote_port": None,
}  # fmt: skip
PREFILL: dict[str, Any] = {"max_tokens": 1, "stream": False, "kv_transfer_params": ASKED}
PROMPT = [7] * 100


class Pair(NamedTuple):
    """One engine of each role."""

    prefill: EmulatedServer
    decode: EmulatedServer


@asynccontextmanager
async def pair(connector: KvConnector = KvConnector.NIXL, **fields: Any) -> AsyncIterator[Pair]:
    given = KvTransfer(role=KvRole.PREFILL, connector=connector, strict=True, **fields)
    async with serving(replace(settings(), kv_transfer=given)) as prefill:
        other = replace(given, role=KvRole.DECODE, peers=(prefill.url,))
        async with serving(replace(settings(), kv_transfer=other)) as decode:
            yield Pair(prefill, decode)


async def ask(server: EmulatedServer, name: str | None = "r1", **fields: Any) -> Answer:
    body = {"model": MODEL, "prompt": PROMPT, **fields}
    headers = {"X-Request-Id": name} if name else {}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{server.url}/v1/completions", json=body, headers=headers) as got,
    ):
        return Answer(got.status, await got.read())


async def computed(server: EmulatedServer, **fields: Any) -> dict[str, Any]:
    """What a prefill leg is answered, as a router hands it over."""
    answer = await ask(server, **{**PREFILL, **fields})
    assert answer.status == 200, answer.body
    params: dict[str, Any] = answer.json()["kv_transfer_params"]
    return {**params, "remote_host": "127.0.0.1"}


async def test_a_prompt_is_fetched_once() -> None:
    async with pair() as it:
        params = await computed(it.prefill)

        first = await ask(it.decode, kv_transfer_params=params, max_tokens=5)
        second = await ask(it.decode, kv_transfer_params=params)

        assert first.json()["usage"]["completion_tokens"] == 5
        assert second.status == 500
        assert "or is gone" in second.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        pytest.param({"kv_transfer_params": None}, "for others only", id="no-params"),
        pytest.param(
            {"kv_transfer_params": {**ASKED, "do_remote_prefill": True}},
            "kv_transfer_params of a prefill leg",
            id="wrong-params",
        ),
        pytest.param({"max_tokens": 2}, "one token", id="more-tokens"),
        pytest.param({"max_completion_tokens": 9}, "one token", id="a-limit-that-wins"),
        pytest.param({"stream": True}, "not streamed", id="a-stream"),
        pytest.param({"name": None}, "no X-Request-Id", id="no-request-id"),
        pytest.param({"prompt": ["a", "b"]}, "one prompt", id="two-prompts"),
        pytest.param({"min_tokens": 2}, "min_tokens", id="min-tokens-as-vllm-says"),
    ],
)
async def test_what_a_prefill_leg_must_not_be(fields: dict[str, Any], why: str) -> None:
    async with pair() as it:
        answer = await ask(it.prefill, **{**PREFILL, **fields})

        assert answer.status == 400
        assert why in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("wrong", "status", "why"),
    [
        pytest.param({"kv_transfer_params": None}, 400, "one prompt and", id="no-params"),
        pytest.param({"remote_port": None}, 400, "lack ['remote_port']", id="a-field-is-missing"),
        pytest.param({"do_remote_prefill": False}, 400, "decode leg", id="nothing-to-fetch"),
        pytest.param({"name": "r2"}, 500, "request r1, not for r2", id="another-request-id"),
        pytest.param({"prompt": [8] * 100}, 500, "another prompt", id="another-prompt"),
        pytest.param({"remote_engine_id": "x"}, 500, "this is engine", id="another-engine"),
        pytest.param({"remote_block_ids": [[1]]}, 500, "not its blocks", id="other-blocks"),
        pytest.param({"remote_request_id": "x"}, 500, "not computed here", id="unknown-request"),
        pytest.param({"remote_host": "side-channel.invalid"}, 500, "invalid", id="not-its-host"),
    ],
)
async def test_what_a_decode_leg_must_not_be(wrong: dict[str, Any], status: int, why: str) -> None:
    async with pair() as it:
        params = await computed(it.prefill)
        of_body = {key: value for key, value in wrong.items() if key not in params}
        handed = {key: wrong.get(key, value) for key, value in params.items()}

        answer = await ask(it.decode, **{"kv_transfer_params": handed, **of_body})

        assert answer.status == status
        assert why in answer.json()["error"]["message"]


async def test_a_shared_store_is_searched_by_request_and_prompt() -> None:
    async with pair(KvConnector.SHARED) as it:
        assert (await ask(it.prefill, max_tokens=1, stream=False)).status == 200

        strange = await ask(it.decode, "r2")
        found = await ask(it.decode, "r1")

        assert strange.status == 500
        assert "no peer computed it" in strange.json()["error"]["message"]
        assert found.status == 200


async def test_a_transfer_takes_what_its_bytes_take() -> None:
    # 100 tokens of 128 KiB at 0.65 MB/s, a hundred times as fast: 0.2 s.
    async with pair(gbytes_per_s=6.5e-4) as it:
        params = await computed(it.prefill)
        clock = it.decode.engine.clock
        began_s = clock()

        await ask(it.decode, kv_transfer_params=params, max_tokens=1)

        assert 0.2 < clock() - began_s < 2.0


def test_a_fetched_prompt_is_not_computed_and_is_cached() -> None:
    model = engine(num_blocks=20)
    sequence = model.add(structs.replace(request("a", 40, max_tokens=3), transferred=True))

    result = model.step(0.0)

    assert result is not None
    assert [(chunk.new_tokens, chunk.context_tokens) for chunk in result.chunks] == [(1, 39)]
    assert (sequence.cached_tokens, sequence.output_tokens) == (0, 1)
    (stored,) = [event for event in result.events if isinstance(event, BlockStored)]
    assert len(stored.block_hashes) == 2
    assert result.prefix_hits_tokens == 0


def test_a_fetched_prompt_whose_blocks_were_lost_is_computed() -> None:
    model = engine(num_blocks=8, prefix_caching=False)  # 7 blocks of 16 tokens for two requests
    for name in "ab":
        model.add(structs.replace(request(name, 40, max_tokens=30), transferred=True))
    chunks = []
    for result in steps(model):
        chunks += [(chunk.sequence.request_id, chunk.new_tokens) for chunk in result.chunks]

    assert chunks[:2] == [("a", 1), ("b", 1)]
    assert [name for name, tokens in chunks if tokens > 40] == ["b"]


def test_flags_of_the_command() -> None:
    flags = [
        "--kv-role",
        "decode",
        "--kv-connector",
        "shared",
        "--kv-peer",
        "http://p",
        "--kv-strict",
    ]

    assert parse(flags).kv_transfer == KvTransfer(
        role=KvRole.DECODE, connector=KvConnector.SHARED, strict=True, peers=("http://p",)
    )
    assert parse([]).kv_transfer is None
    with pytest.raises(ConfigError, match="above 0"):
        parse([*flags, "--kv-gbytes-per-s", "0"])
