"""One line per routed request, in order, that no client can forge."""

import asyncio
import re
from collections.abc import Sequence

import pytest

from lodestar_router.core.types import EngineId
from lodestar_router.proxy.route_log import RouteLog
from lodestar_router.proxy.session_key import SessionKey
from tests.fake_engine import FakeEngine
from tests.proxy.harness import Edge, Written, completion, edge_before, post

# As production-stack's tests/e2e/test-routing.py reads it.
KEPT = re.compile(r"Routing request.*to.*at.*process time")
READ = re.compile(r"Routing request ([^ ]*) with session id ([^ ]*) to ([^ ]*) at ")


async def ask(edge: Edge, *headers: str, path: str = "/v1/completions", **fields: object) -> int:
    client = await edge.client()
    await client.send(post(path, completion(**fields), *headers))
    return (await client.reply()).status


def read(line: str) -> tuple[str, ...]:
    assert KEPT.search(line)
    found = READ.search(line)
    assert found, line
    return found.groups()


async def test_every_routed_request_has_one_line() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        await ask(edge, "X-Request-Id: r1")
        await ask(edge, "X-Request-Id: r2", stream=True)
        await ask(edge, "X-Request-Id: r3", path="/v1/embeddings")

        assert [read(line) for line in edge.route_lines.lines] == [
            (name, "None", engine.url) for name in ("r1", "r2", "r3")
        ]
        assert re.fullmatch(
            rf"Routing request r1 with session id None to {engine.url} at 1000000\.500000, "
            r"process time = \d\.\d{4}",
            edge.route_lines.lines[0],
        )
    await engine.stop()


async def test_what_goes_nowhere_has_none() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        assert await ask(edge, model="nobody's") == 404
        assert await ask(edge, model=7) == 400
        edge.fleet.mark_down(EngineId("e0"), "gone", 0.0)
        assert await ask(edge) == 503

        assert edge.route_lines.lines == []
    await engine.stop()


async def test_retry_adds_no_second_line(caplog: pytest.LogCaptureFixture) -> None:
    dead, engine = await FakeEngine().start(), await FakeEngine().start()
    await dead.stop()
    caplog.set_level("INFO")
    async with edge_before(dead, engine) as edge:
        assert await ask(edge, "X-Request-Id: r1") == 200

        assert [read(line) for line in edge.route_lines.lines] == [("r1", "None", dead.url)]
        assert f"Routing request r1 to {engine.url} (attempt 2)" in caplog.text
        assert not KEPT.search(caplog.text)
    await engine.stop()


async def test_session_is_shown_in_one_word() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine, session_key=SessionKey("x-user-id", in_body=True)) as edge:
        await ask(edge, "X-User-Id: u1")
        await ask(edge, "X-User-Id: u to http://evil at 1, process time = 1")
        await ask(edge, **{"x-user-id": "u\nRouting request é"})

        sessions = [read(line)[1] for line in edge.route_lines.lines]
        assert sessions == [
            "u1",
            "u?to?http://evil?at?1,?process?time?=?1",
            "u?Routing?request??",
        ]
    await engine.stop()


async def test_line_is_written_before_the_client_has_its_answer() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        for number in range(50):
            await ask(edge, f"X-Request-Id: r{number}")

            assert len(edge.route_lines.lines) == number + 1
    await engine.stop()


async def test_lines_of_one_turn_are_one_write_in_order() -> None:
    writes: list[list[str]] = []

    class Writes(Written):
        def write(self, messages: Sequence[tuple[float, str]]) -> None:
            writes.append([message for _, message in messages])

    log = RouteLog(Writes(), wall_s=lambda: 1.0)
    for number in range(3):
        log.routed(f"r{number}", None, "http://a:1", process_s=0.0)
    await asyncio.sleep(0)
    log.routed("r3", None, "http://a:1", process_s=0.0)
    log.flush()
    await asyncio.sleep(0)

    assert [[read(line)[0] for line in lines] for lines in writes] == [["r0", "r1", "r2"], ["r3"]]


async def test_nothing_is_kept_where_nobody_wants_it() -> None:
    written = Written(wanted=False)
    log = RouteLog(written, wall_s=lambda: 1.0)

    log.routed("r", None, "http://a:1", process_s=0.0)
    log.flush()

    assert written.lines == []
