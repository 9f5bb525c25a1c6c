"""Engines that hand computed prompts on, and check that they are asked as vLLM's are.

    prefill   takes requests for one token; keeps what it computed until it is fetched, once
    decode    fetches the prompt of a request before it is queued; it then counts as computed

    nixl      `kv_transfer_params` name the prefill engine, the request there and its blocks
    shared    nothing is named: the prompt is looked for at all peers, by request id and tokens

Blocks are asked for over the prefill engine's HTTP port. It gives them if the engine id, the
request there, the X-Request-Id of both legs, the block ids and the prompt agree. The decode
engine then waits for as long as their bytes take.

In       bodies, prompts, the X-Request-Id.
Out      Received; kv_transfer_params for the prefill engine's answer.
Errors   ApiError: 400 for what the protocol does not allow, 500 for what cannot be fetched, as
         vLLM with kv_load_failure_policy=fail.
Source   vllm/distributed/kv_transfer/kv_connector/v1/nixl/pull_scheduler.py at v0.32.0.

Left out: a prompt on its way holds no blocks on either engine. `strict` refuses requests that
have no part in a handover, which vLLM serves as any other.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import aiohttp
import msgspec
import xxhash
from aiohttp import web

from lodestar_router.core.block_keys import TokenArray
from lodestar_router.emulator.openai_requests import ApiError
from lodestar_router.emulator.sequence import Sequence as EngineSequence
from lodestar_router.emulator.server_settings import KvConnector, KvRole, KvTransfer

FETCH = "/emulated/kv_cache"
_UNNAMED_HOST = "side-channel.invalid"  # it does not know by what name others reach it
_OF_A_PREFILL = {
    "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None,
    "remote_block_ids": None, "remote_host": None, "remote_port": None,
}  # fmt: skip
_OF_A_DECODE = (
    "remote_engine_id", "remote_request_id", "remote_block_ids", "remote_host", "remote_port",
)  # fmt: skip


class Received(NamedTuple):
    """A prompt that came computed."""

    cached_tokens: int | None  # what the prefill engine had found cached


class KvSide(Protocol):
    """One engine's part in handovers."""

    async def receive(
        self, body: Mapping[str, Any], name: str | None, prompts: Sequence[TokenArray]
    ) -> Received | None:
        """Check a request; its prompt if it was fetched. `name` is its X-Request-Id."""

    def offer(
        self, body: Mapping[str, Any], name: str | None, prompt: TokenArray, done: EngineSequence
    ) -> dict[str, Any] | None:
        """What the answer to a computed prompt says of where it is."""


class _Kept(NamedTuple):
    name: str | None
    digest: str
    blocks: list[list[int]]
    tokens: int
    until_s: float


class PrefillSide:
    """Keeps prompts until they are fetched."""

    def __init__(self, settings: KvTransfer, clock: Callable[[], float]) -> None:
        self.port = 0  # of HTTP, once it is known
        self.engine_id = secrets.token_hex(8)
        self.handed_over = 0
        self._settings = settings
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    async def receive(
        self, body: Mapping[str, Any], name: str | None, prompts: Sequence[TokenArray]
    ) -> Received | None:
        """Check that it is asked for one token, whole."""
        if not self._has_part(body):
            if self._settings.strict:
                raise _wrong("this engine computes prompts for others only")
            return None
        if name is None:
            raise _wrong("a prefill leg has no X-Request-Id")
        if len(prompts) != 1:
            raise _wrong("a prefill leg has one prompt")
        limits = {body.get(key, 1) for key in ("max_tokens", "max_completion_tokens")}
        if "max_tokens" not in body or limits != {1}:
            raise _wrong("a prefill leg asks for one token")
        if body.get("stream") is not False or "stream_options" in body:
            raise _wrong("a prefill leg is not streamed")
        return None

    def _has_part(self, body: Mapping[str, Any]) -> bool:
        params = body.get("kv_transfer_params")
        if self._settings.connector is KvConnector.SHARED:
            if params is not None or "max_completion_tokens" in body:
                raise _wrong("a prefill leg has no kv_transfer_params, no max_completion_tokens")
            return body.get("max_tokens") == 1
        if params is not None and params != _OF_A_PREFILL:
            raise _wrong(f"kv_transfer_params of a prefill leg are {_OF_A_PREFILL}")
        return params is not None

    def offer(
        self, body: Mapping[str, Any], name: str | None, prompt: TokenArray, done: EngineSequence
    ) -> dict[str, Any] | None:
        """Keep the prompt."""
        if not self._has_part(body):
            return None
        now_s = self._clock()
        self._kept = {key: kept for key, kept in self._kept.items() if kept.until_s > now_s}
        count = -(-len(prompt) // done.block_size_tokens)
        blocks = [list(range(1, count + 1))]
        nixl = self._settings.connector is KvConnector.NIXL
        request_id = done.request_id if nixl else str(name)
        self._kept[request_id] = _Kept(
            name, digest(prompt), blocks, len(prompt), now_s + self._settings.lease_s
        )
        if not nixl:
            return None
        return {
            "do_remote_prefill": True, "do_remote_decode": False, "remote_block_ids": blocks,
            "remote_engine_id": self.engine_id, "remote_request_id": request_id,
            "remote_host": _UNNAMED_HOST, "remote_port": self.port, "tp_size": 1,
            "remote_num_tokens": len(prompt),
            "remote_prefill_cached_tokens": done.cached_tokens,
        }  # fmt: skip

    async def give(self, request: web.Request) -> web.Response:
        """Somebody fetches a prompt."""
        asked = msgspec.json.decode(await request.read())
        kept = self._kept.get(asked["request_id"])
        wrong = "it was not computed here, or is gone"
        if kept is not None and kept.until_s > self._clock():
            wrong = self._disagreement(kept, asked)
        if wrong:
            return web.json_response({"error": wrong}, status=404)
        assert kept is not None
        del self._kept[asked["request_id"]]
        self.handed_over += 1
        return web.json_response({"tokens": kept.tokens})

    def _disagreement(self, kept: _Kept, asked: Mapping[str, Any]) -> str:
        if kept.name != asked["name"]:
            return f"it was computed for request {kept.name}, not for {asked['name']}"
        if kept.digest != asked["digest"]:
            return "it is another prompt"
        if self._settings.connector is KvConnector.NIXL:
            if asked["engine_id"] != self.engine_id:
                return f"this is engine {self.engine_id}"
            if asked["blocks"] != kept.blocks:
                return "these are not its blocks"
        return ""


class DecodeSide:
    """Fetches prompts.

    Args:
        s_per_token: what a token's keys and values take on their way.
    """

    def __init__(self, settings: KvTransfer, s_per_token: float) -> None:
        self.fetched = 0
        self._settings = settings
        self._s_per_token = s_per_token

    async def receive(
        self, body: Mapping[str, Any], name: str | None, prompts: Sequence[TokenArray]
    ) -> Received | None:
        """Fetch the prompt of a decode leg."""
        nixl = self._settings.connector is KvConnector.NIXL
        params = body.get("kv_transfer_params") or {}
        if (nixl and not params) or len(prompts) != 1:
            if self._settings.strict:
                raise _wrong("a decode leg has one prompt and kv_transfer_params")
            return None
        asked = {"name": name, "digest": digest(prompts[0])}
        fetched = await (self._named(params, asked) if nixl else self._looked_for(asked))
        if fetched is None:
            if self._settings.strict:
                raise _not_fetched("no peer computed it")
            return None
        await asyncio.sleep(len(prompts[0]) * self._s_per_token)
        self.fetched += 1
        return Received(params.get("remote_prefill_cached_tokens"))

    async def _named(self, params: Mapping[str, Any], asked: dict[str, Any]) -> object:
        missing = [key for key in _OF_A_DECODE if params.get(key) is None]
        if params.get("do_remote_prefill") is not True or missing:
            raise _wrong(f"kv_transfer_params of a decode leg lack {missing}")
        where = f"http://{params['remote_host']}:{params['remote_port']}"
        asked |= {
            "request_id": params["remote_request_id"],
            "engine_id": params["remote_engine_id"],
            "blocks": params["remote_block_ids"],
        }
        status, said = await _ask(where, asked)
        if status != 200:
            raise _not_fetched(said["error"])
        return said

    async def _looked_for(self, asked: dict[str, Any]) -> object:
        asked |= {"request_id": asked["name"]}
        for peer in self._settings.peers:
            status, said = await _ask(peer, asked)
            if status == 200:
                return said
        return None

    def offer(
        self, body: Mapping[str, Any], name: str | None, prompt: TokenArray, done: EngineSequence
    ) -> dict[str, Any] | None:
        """A decode engine hands nothing on."""
        return None


def side_of(
    settings: KvTransfer | None, s_per_token: float, clock: Callable[[], float]
) -> PrefillSide | DecodeSide | None:
    """The part of an engine with these settings."""
    if settings is None:
        return None
    if settings.role is KvRole.PREFILL:
        return PrefillSide(settings, clock)
    return DecodeSide(settings, s_per_token)


def digest(prompt: TokenArray) -> str:
    """What two engines compare prompts by."""
    return xxhash.xxh3_128_hexdigest(prompt.tobytes())


async def _ask(url: str, asked: Mapping[str, Any]) -> tuple[int, Any]:
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.post(url + FETCH, data=msgspec.json.encode(asked)) as answer,
        ):
            return answer.status, msgspec.json.decode(await answer.read())
    except (aiohttp.ClientError, msgspec.DecodeError, ValueError) as error:
        return 0, {"error": f"{url}: {error}"}


def _wrong(message: str) -> ApiError:
    return ApiError(message, param="kv_transfer_params")


def _not_fetched(why: str) -> ApiError:
    return ApiError(f"KV cache of the prompt: {why}", kind="InternalServerError", status=500)
