"""The router in front of emulated engines: its adapters meet in them what they meet in vLLM."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

import aiohttp

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from lodestar_router.core.types import PrefixViewKind
from lodestar_router.emulator.fleet import spec_of
from lodestar_router.emulator.server import EmulatedServer
from tests.emulator.server_rig import MODEL, cached, language, serving, settings, until


class Routed:
    """A router and its engines; requests go through the router."""

    def __init__(self, router: Router, port: int, servers: list[EmulatedServer]) -> None:
        self.router = router
        self.servers = servers
        self._url = f"http://127.0.0.1:{port}"

    async def ask(self, body: dict[str, Any], path: str = "/v1/completions") -> tuple[int, Any]:
        """(cached tokens that the router expected, the answer)."""
        async with (
            aiohttp.ClientSession() as http,
            http.post(self._url + path, json={"model": MODEL, **body}) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return int(answer.headers["x-lodestar-cached-tokens"]), await answer.json()

    def caught_up(self) -> bool:
        """Whether the router has applied every batch that was published."""
        for server in self.servers:
            watch = self.router.watches[spec_of(server.settings).engine_id]
            feeds = watch.describe()["kv_events"]
            published = 0 if server.kv is None else server.kv.published
            if sum(feed["frames"] for feed in feeds) < published:
                return False
        return True

    def exact(self) -> bool:
        return all(
            state.up and self.router.index.kind(state.spec.engine_id) is PrefixViewKind.EXACT
            for state in self.router.fleet
        )


@asynccontextmanager
async def routed(count: int, policy: str, **engine: Any) -> AsyncIterator[Routed]:
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(serving(settings(**engine))) for _ in range(count)
        ]
        argv = ["--engines", "http://a:1", "--port", "0", "--host", "127.0.0.1", "--no-trainer"]
        argv += ["--routing-logic", policy, "--seed", "1", "--metrics-interval", "0.05"]
        config = replace(
            parse([*argv, "--tokenizer", language().root], {}),
            engines=tuple(spec_of(server.settings) for server in servers),
        )
        router = Router(config)
        try:
            fleet = Routed(router, await router.start(), servers)
            await until(fleet.exact)
            yield fleet
        finally:
            await router.stop(drain_s=0.5)


async def test_expected_cached_tokens_are_those_reported() -> None:
    rng = Random(3)
    stems = [[rng.randrange(500, 9000) for _ in range(200)] for _ in range(4)]
    # So few blocks that prefixes are evicted, and found gone.
    async with routed(2, "prefix_cache_and_load", kv_blocks=40, max_model_len=500) as fleet:
        hits = 0
        for _ in range(40):
            prompt = rng.choice(stems)[: rng.randrange(20, 200)]
            prompt = prompt + [rng.randrange(500, 9000) for _ in range(rng.randrange(1, 60))]
            await until(fleet.caught_up)

            expected, answer = await fleet.ask({"prompt": prompt, "max_tokens": 20})

            assert expected == cached(answer)
            hits += expected > 0
        assert hits > 5


async def test_a_chat_is_expected_where_its_history_is() -> None:
    async with routed(2, "prefix_cache_and_load") as fleet:
        messages = [{"role": "user", "content": "Tell me about ships. " * 20}]
        for turn in range(4):
            await until(fleet.caught_up)

            expected, answer = await fleet.ask(
                {"messages": messages, "max_tokens": 40}, "/v1/chat/completions"
            )

            assert expected == cached(answer)
            assert (expected > 100) == (turn > 0)
            reply = answer["choices"][0]["message"]["content"]
            messages += [
                {"role": "assistant", "content": reply},
                {"role": "user", "content": "Go on."},
            ]


async def test_loads_come_from_scheduler_stats() -> None:
    async with routed(1, "least_request") as fleet:
        (state,) = fleet.router.fleet

        await until(lambda: state.load is not None and state.load.source == "scheduler_stats")

        assert state.kv_blocks == 400


async def test_an_engine_that_restarts_is_seen_empty_again() -> None:
    async with routed(1, "prefix_cache_and_load") as fleet:
        (server,), prompt = fleet.servers, [5] * 100
        await fleet.ask({"prompt": prompt, "max_tokens": 2})
        await until(fleet.caught_up)
        (state,) = fleet.router.fleet

        await server.stop()
        await until(lambda: not state.up)
        await server.start()
        await until(fleet.exact)
        expected, answer = await fleet.ask({"prompt": prompt, "max_tokens": 2})

        assert (expected, cached(answer)) == (0, 0)
