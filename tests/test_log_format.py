"""The log of a router process: one line per routed request, in either format."""

import json
import re

import pytest

from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, completion, post
from tests.router_process import router_process

ROUTED = re.compile(
    r"Routing request (r\d) with session id (\S+) to (\S+) at \d+\.\d{6}, process time = \d\.\d{4}"
)


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_every_routed_request_has_its_line(log_format: str) -> None:
    engine = await FakeEngine().start()
    flags = ["--routing-logic", "session", "--session-key", "x-user-id"]
    async with router_process(
        "--engines", engine.url, "--log-format", log_format, *flags
    ) as router:
        await router.said("is up")
        client = await RawClient.to(router.port)
        for number in range(4):
            headers = (f"X-Request-Id: r{number}", f"X-User-Id: u{number % 2}")
            await client.send(post("/v1/completions", completion(stream=number == 3), *headers))
            assert (await client.reply()).status == 200
        await router.said("Routing request r3")
        await client.close()

        lines = [line.rstrip("\n") for line in router.log]

    if log_format == "json":
        records = [json.loads(line) for line in lines]
        assert {"timestamp", "level", "logger", "message", "filename", "lineno"} == {
            key for record in records for key in record
        }
        messages = [record["message"] for record in records]
    else:
        messages = [re.sub(r"^\S+ \S+ [A-Z]+ \S+: ", "", line) for line in lines]
    routed = [found.groups() for each in messages if (found := ROUTED.fullmatch(each))]
    assert routed == [(f"r{n}", f"u{n % 2}", engine.url) for n in range(4)]
    await engine.stop()
