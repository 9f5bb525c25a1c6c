"""A router in front of emulated prefill and decode engines, which check what they are asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from lodestar_router.core.types import EngineId
from lodestar_router.emulator.kv_transfer import DecodeSide, PrefillSide
from lodestar_router.emulator.server import EmulatedServer
from lodestar_router.emulator.server_settings import KvConnector, KvRole, KvTransfer
from lodestar_router.proxy.route_log import RouteLog
from tests.emulator.server_rig import MODEL, SPEED, language, serving, settings, until
from tests.proxy.harness import RawClient, Reply, Written, get, post

NIXL, SHARED = KvConnector.NIXL, KvConnector.SHARED
LOGIC = {NIXL: "disaggregated_prefill_orchestrated", SHARED: "disaggregated_prefill"}
# Long against the machine's own time, short against the test's.
SLOW = 0.2


@dataclass
class Legs:
    """The router, its engines, and requests through it."""

    router: Router
    port: int
    prefill: Sequence[EmulatedServer]
    decode: Sequence[EmulatedServer]
    clients: list[RawClient] = field(default_factory=list)

    async def client(self) -> RawClient:
        """A connection, closed with the router."""
        client = await RawClient.to(self.port)
        self.clients.append(client)
        return client

    async def ask(
        self, *headers: str, path: str = "/v1/completions", tokens: int = 4, **fields: Any
    ) -> Reply:
        """One answer over a connection of its own."""
        client = await self.send(*headers, path=path, tokens=tokens, **fields)
        return await client.reply()

    async def send(
        self, *headers: str, path: str = "/v1/completions", tokens: int = 4, **fields: Any
    ) -> RawClient:
        """A request whose answer is for the test to read."""
        body = {"model": MODEL, "max_tokens": tokens, "ignore_eos": True, **fields}
        if "messages" not in body:
            body.setdefault("prompt", [7] * 100)
        client = await self.client()
        await client.send(post(path, body, *headers))
        return client

    async def get(self, path: str) -> Any:
        client = await self.client()
        await client.send(get(path))
        return (await client.reply()).json()

    @property
    def handed_over(self) -> int:
        """Prompts that were fetched from prefill engines."""
        sides = [server.kv_side for server in self.prefill]
        return sum(side.handed_over for side in sides if isinstance(side, PrefillSide))

    @property
    def fetched(self) -> int:
        """Prompts that decode engines have got."""
        sides = [server.kv_side for server in self.decode]
        return sum(side.fetched for side in sides if isinstance(side, DecodeSide))

    def written(self) -> list[str]:
        """The lines about routed requests, from now on."""
        lines = Written()
        self.router._dispatcher.route_log = RouteLog(lines, wall_s=lambda: 1.0)
        return lines.lines

    def counted(self, outcome: str) -> float:
        """Prefill legs with an outcome."""
        registry = self.router.metrics.registry
        return registry.get_sample_value("lodestar:prefill_legs_total", {"outcome": outcome}) or 0

    def idle(self) -> bool:
        """Whether nothing is under way: not here, and at no engine."""
        counted = sum(
            state.inflight_requests
            + state.inflight_prefill_requests
            + abs(state.inflight_prefill_tokens)
            + abs(state.inflight_decode_tokens)
            for state in self.router.fleet
        )
        servers = [*self.prefill, *self.decode]
        return counted == 0 and all(server.engine.requests == 0 for server in servers)


def at(server: EmulatedServer) -> EngineId:
    """The engine's id in the router."""
    return EngineId(server.url.removeprefix("http://"))


@asynccontextmanager
async def legs(
    connector: KvConnector = NIXL,
    *,
    flags: str = "",
    labels: str = "p,p,d,d",
    strict: bool = True,
    prefill_speed: float = SPEED,
    decode_speed: float = SPEED,
    **transfer: Any,
) -> AsyncIterator[Legs]:
    """Two prefill and two decode engines. `transfer` are fields of KvTransfer."""
    async with AsyncExitStack() as stack:

        async def start(role: KvRole, speed: float, peers: tuple[str, ...]) -> EmulatedServer:
            part = KvTransfer(
                role=role, connector=connector, strict=strict, peers=peers, **transfer
            )
            given = replace(settings(speed=speed), kv_transfer=part)
            return await stack.enter_async_context(serving(given))

        prefill = [await start(KvRole.PREFILL, prefill_speed, ()) for _ in range(2)]
        peers = tuple(server.url for server in prefill)
        decode = [await start(KvRole.DECODE, decode_speed, peers) for _ in range(2)]
        urls = [server.url for server in (*prefill, *decode)]
        argv = [
            *("--static-backends", ",".join(urls), "--static-models", ",".join([MODEL] * 4)),
            *("--static-model-labels", labels, "--routing-logic", LOGIC[connector]),
            *("--prefill-model-labels", "p", "--decode-model-labels", "d"),
            *("--host", "127.0.0.1", "--port", "0", "--no-trainer", "--seed", "1"),
            *("--metrics-interval", "0.05", "--tokenizer", language().root, *flags.split()),
        ]
        router = Router(parse(argv, {}))
        rig = Legs(router, 0, prefill, decode)
        try:
            rig.port = await router.start()
            await until(lambda: all(state.up for state in router.fleet))
            yield rig
        finally:
            for client in rig.clients:
                await client.close()
            await router.stop(drain_s=0.5)


def events(reply: Reply) -> list[Any]:
    """The objects of a stream that ended as one does."""
    assert reply.headers["content-type"].startswith("text/event-stream")
    frames = reply.body.decode().split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


async def gather(*asked: Any) -> list[Reply]:
    """Several at once."""
    return list(await asyncio.gather(*asked))
