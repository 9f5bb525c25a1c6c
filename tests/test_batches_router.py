"""Files and batches of a router that runs as a process: flags, a kill, a switch that is off."""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from tests.batches.rig import ENDPOINT, numbered
from tests.fake_engine import FakeEngine
from tests.proxy.forms import form, part, post_form
from tests.proxy.harness import RawClient, Reply, post
from tests.router_process import RouterProcess, router_process


async def send(router: RouterProcess, request: bytes) -> Reply:
    client = await RawClient.to(router.port)
    await client.send(request)
    reply = await client.reply()
    await client.close()
    return reply


async def begin(router: RouterProcess, lines: int) -> Any:
    content = part("file", numbered(lines), filename="in.jsonl")
    file = (await send(router, post_form("/v1/files", form(content)))).json()
    body = {"input_file_id": file["id"], "endpoint": ENDPOINT}
    return (await send(router, post("/v1/batches", body))).json()


async def batch(router: RouterProcess, batch_id: str) -> Any:
    return (await router.get(f"/v1/batches/{batch_id}")).json()


def asked(engine: FakeEngine) -> list[str]:
    return [target for target, _, _ in engine.requests if target == ENDPOINT]


async def test_a_router_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    engine.gap_s, engine.has_metrics = 0.01, False  # its metrics say that requests wait
    flags = (
        "--engines", engine.url, "--enable-batch-api", "--file-storage-path", str(tmp_path / "new"),
        "--batch-concurrency", "2",
    )  # fmt: skip
    async with router_process(*flags) as router:
        begun = await begin(router, 60)
        async with asyncio.timeout(30):
            while (await batch(router, begun["id"]))["request_counts"]["completed"] < 20:
                await asyncio.sleep(0.05)
        router.signal(signal.SIGKILL)
        await router.exit_code()
    before = len(asked(engine))
    engine.gap_s = 0.0
    async with router_process(*flags) as router:
        async with asyncio.timeout(30):
            while (ended := await batch(router, begun["id"]))["status"] != "completed":
                await asyncio.sleep(0.05)
        output = await router.get(f"/v1/files/{ended['output_file_id']}/content")
        metrics = (await router.get("/metrics")).body
        router.signal(signal.SIGTERM)
        assert await router.exit_code() == 0

    ids = [json.loads(line)["custom_id"] for line in output.body.splitlines()]
    assert ids == [f"line-{number}" for number in range(60)]
    assert ended["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
    assert 60 <= len(asked(engine)) <= 62  # what was under way at the kill is asked again
    assert before < 60
    assert b"lodestar:unfinished_batches 0" in metrics
    await engine.stop()


async def test_without_the_flag_the_endpoints_say_which_flag_it_is() -> None:
    engine = await FakeEngine().start()
    async with router_process("--engines", engine.url) as router:
        for path in ("/v1/files", "/v1/files/x", "/v1/batches", "/v1/batches/x/cancel"):
            reply = await router.get(path)
            assert reply.status == 404
            assert "--enable-batch-api" in reply.json()["error"]["message"]
    await engine.stop()


async def test_a_storage_path_that_is_in_use_is_one_line(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    flags = ("--engines", engine.url, "--enable-batch-api", "--file-storage-path", str(tmp_path))
    async with router_process(*flags):
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lodestar_router", *flags, "--port", "0", "--no-trainer",
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert second.stderr is not None
        said = (await second.stderr.read()).decode()

        assert await second.wait() == 2
        assert f"--file-storage-path {tmp_path}: another router uses it" in said
    await engine.stop()
