"""Fleets of emulated engines: processes that start, come back, and leave nothing behind."""

import asyncio
import os
import signal
import sys
from dataclasses import replace

import pytest

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from lodestar_router.config.model import EmulatedGroup
from lodestar_router.emulator.fleet import EmulatedFleet
from lodestar_router.emulator.kv_transfer import FETCH
from lodestar_router.emulator.server_settings import KvConnector
from lodestar_router.errors import ConfigError
from tests.emulator.server_rig import MODEL, call, until
from tests.proxy.harness import RawClient, post

_ONE = [EmulatedGroup(count=1)]

# A router's place: starts a fleet, says its pid, and waits to be killed.
_OWNER = """
import asyncio
from lodestar_router.config.model import EmulatedGroup
from lodestar_router.emulator.fleet import EmulatedFleet

async def main():
    fleet = EmulatedFleet([EmulatedGroup(count=1)])
    await fleet.start()
    print(fleet.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_mixed_fleet_serves_and_comes_back_on_its_ports_when_killed() -> None:
    fleet = EmulatedFleet([EmulatedGroup(count=2), EmulatedGroup(count=1, gpu="V100")], speed=50)
    try:
        specs = await fleet.start()
        assert [spec.gpu for spec in specs] == ["A30", "A30", "V100"]
        assert len({spec.url for spec in specs}) == 3
        for spec in specs:
            body = {"model": MODEL, "prompt": "Once", "max_tokens": 2}
            assert (await call(spec.url, "/v1/completions", body)).status == 200
            assert spec.scheduler_stats[0].startswith("tcp://127.0.0.1:")
        first = fleet.pid
        assert first is not None

        os.kill(first, signal.SIGKILL)

        await until(lambda: fleet.starts == 2, limit_s=30)
        for _ in range(500):
            try:
                assert (await call(specs[0].url, "/health")).status == 200
                break
            except OSError:
                await asyncio.sleep(0.05)
        else:
            pytest.fail("the fleet did not come back")
    finally:
        await fleet.stop()

    assert fleet.pid is not None
    assert not alive(fleet.pid)


async def test_no_engine_outlives_a_router_that_is_killed() -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OWNER, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    child = int(await owner.stdout.readline())
    assert alive(child)

    owner.kill()
    await owner.wait()

    await until(lambda: not alive(child))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        pytest.param(EmulatedGroup(count=1, gpu="A31"), "known: A30, ", id="gpu"),
        pytest.param(EmulatedGroup(count=1, model="gpt"), "known: llama-3-8b", id="model"),
    ],
)
async def test_an_engine_that_does_not_exist_is_one_line_with_those_that_do(
    group: EmulatedGroup, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        await EmulatedFleet([group]).start()

    assert "\n" not in str(raised.value)


async def test_what_the_process_cannot_do_is_its_fleets_error() -> None:
    fleet = EmulatedFleet(_ONE, tokenizer_of=lambda _model: "/nowhere/at/all")

    with pytest.raises(ConfigError, match="no such directory"):
        await fleet.start()

    await fleet.stop()


async def test_a_fleet_of_nothing_starts_nothing() -> None:
    fleet = EmulatedFleet([])

    assert await fleet.start() == ()
    assert fleet.pid is None
    await fleet.stop()


@pytest.mark.parametrize(
    ("logic", "kv_connector"),
    [
        ("disaggregated_prefill", KvConnector.SHARED),
        ("disaggregated_prefill_orchestrated", KvConnector.NIXL),
    ],
)
async def test_engines_with_roles_hand_prompts_over(logic: str, kv_connector: KvConnector) -> None:
    groups = [EmulatedGroup(count=1, role="decode"), EmulatedGroup(count=1, role="prefill")]
    fleet = EmulatedFleet(groups, speed=50, kv_connector=kv_connector)
    try:
        specs = await fleet.start()
        flags = [
            *("--engines", "http://a:1", "--host", "127.0.0.1", "--port", "0", "--no-trainer"),
            *("--prefill-model-labels", "prefill", "--decode-model-labels", "decode"),
            *("--routing-logic", logic, "--pd-policy", "roundrobin"),
        ]
        router = Router(replace(parse(flags, {}), engines=specs))
        client = await RawClient.to(await router.start())
        body = {"model": MODEL, "prompt": "Once", "max_tokens": 2}
        await client.send(post("/v1/completions", body, "X-Request-Id: r1"))
        reply = await client.reply()
        await client.close()
        await router.stop(drain_s=0.5)
        asked = {"request_id": "r1", "name": "r1", "digest": ""}
        kept = await call(specs[1].url, FETCH, asked)

        assert reply.status == 200
        assert "x-lodestar-prefill-skipped" not in reply.headers
        assert kept.json() == {"error": "it was not computed here, or is gone"}
    finally:
        await fleet.stop()
