"""/v1/batches from the input file to the output file, in front of fake engines."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lodestar_router.config.client_keys import ClientKey
from lodestar_router.proxy.admission import AdmissionLimits
from lodestar_router.tasks import spawn
from tests.batches.rig import ENDPOINT, Rig, batches_before, jsonl, line, numbered
from tests.batches.test_store import no_file_beyond
from tests.fake_engine import FakeEngine
from tests.proxy.harness import edge_before, until


async def test_every_line_is_answered_once_and_in_order(tmp_path: Path) -> None:
    engines = [await FakeEngine().start() for _ in range(2)]
    async with batches_before(*engines, directory=tmp_path) as rig:
        begun = await rig.begin(numbered(30), metadata={"job": "nightly"})
        ended = await rig.ended(begun["id"])

        assert begun["status"] in ("validating", "in_progress")
        assert (begun["object"], begun["endpoint"]) == ("batch", ENDPOINT)
        assert ended["status"] == "completed"
        assert ended["request_counts"] == {"total": 30, "completed": 30, "failed": 0}
        assert ended["metadata"] == {"job": "nightly"}
        assert ended["error_file_id"] is None
        times = [
            ended[f"{what}_at"] for what in ("created", "in_progress", "finalizing", "completed")
        ]
        assert times == sorted(times)
        assert ended["expires_at"] == ended["created_at"] + 86_400
        lines = await rig.lines(ended["output_file_id"])
        assert [one["custom_id"] for one in lines] == [f"line-{n}" for n in range(30)]
        assert len({one["id"] for one in lines}) == 30
        for number, one in enumerate(lines, start=1):
            assert one["error"] is None
            assert one["response"]["status_code"] == 200
            assert one["response"]["request_id"] == f"{begun['id']}-{number}"
            assert one["response"]["body"]["choices"]
        assert len(engines[0].requests) == len(engines[1].requests) == 15
        assert rig.edge.inflight() == 0
        assert rig.processor.unfinished == 0
    for engine in engines:
        await engine.stop()


async def test_lines_that_fail_go_to_the_error_file(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    content = jsonl([line("good"), line("bad", model="other"), line("also good")])
    async with batches_before(engine, directory=tmp_path) as rig:
        ended = await rig.ended((await rig.begin(content))["id"])

        assert ended["status"] == "completed"
        assert ended["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
        (failed,) = await rig.lines(ended["error_file_id"])
        assert (failed["custom_id"], failed["response"]["status_code"]) == ("bad", 404)
        assert failed["response"]["body"]["error"]["code"] == "model_not_found"
        assert len(await rig.lines(ended["output_file_id"])) == 2
    await engine.stop()


async def test_a_bad_input_fails_before_anything_is_sent(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    async with batches_before(engine, directory=tmp_path) as rig:
        ended = await rig.ended((await rig.begin(jsonl([line("a"), b"{", line("a")])))["id"])

        assert ended["status"] == "failed"
        assert ended["failed_at"] >= ended["created_at"]
        assert [(e["code"], e["line"]) for e in ended["errors"]["data"]] == [
            ("invalid_json_line", 2), ("duplicate_custom_id", 3),
        ]  # fmt: skip
        assert engine.requests == []
    await engine.stop()


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"input_file_id": "file-0"}, 404, "no such file"),
        ({"input_file_id": "../../etc/passwd"}, 404, "no such file"),
        ({"input_file_id": None}, 400, "input_file_id"),
        ({"endpoint": "/sleep"}, 400, "'endpoint'"),
        ({"endpoint": "/v1/audio/transcriptions"}, 400, "'endpoint'"),
        ({"completion_window": "soon"}, 400, "'completion_window'"),
        ({"completion_window": "99d"}, 400, "'completion_window'"),
        ({"metadata": {"a": 1}}, 400, "metadata"),
        ({"metadata": {"a" * 65: "b"}}, 400, "'metadata'"),
        ({"metadata": {str(n): "" for n in range(17)}}, 400, "16 keys"),
        ({"metadata": [[[[[[[[[1]]]]]]]]]}, 400, "deeper"),
    ],
)
async def test_what_no_batch_is_made_of(
    tmp_path: Path, change: dict[str, Any], status: int, message: str
) -> None:
    async with batches_before(directory=tmp_path) as rig:
        file = await rig.upload(numbered(1))
        body = {"input_file_id": file["id"], "endpoint": ENDPOINT, **change}

        answered, error = await rig.call("POST", "/v1/batches", body)

        assert (answered, message in error["error"]["message"]) == (status, True)
        assert (await rig.call("GET", "/v1/batches"))[1]["data"] == []


async def test_no_more_lines_than_that_are_under_way(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 0.01
    most = 0
    async with batches_before(engine, directory=tmp_path, concurrency=3) as rig:
        batches = [await rig.begin(numbered(15)) for _ in range(2)]
        while rig.processor.unfinished:
            most = max(most, rig.runner.running)
            await asyncio.sleep(0.002)

        assert [(await rig.batch(b["id"]))["status"] for b in batches] == ["completed"] * 2
        assert rig.edge.fleet.snapshot(next(iter(rig.edge.fleet)).spec.engine_id, 0)
        assert most > 0
        assert rig.runner.running == 0
    await engine.stop()


async def test_lines_wait_while_others_wait_at_the_engines(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    busy = [True]
    async with batches_before(engine, directory=tmp_path, busy=lambda: busy[0]) as rig:
        begun = await rig.begin(numbered(2))
        await asyncio.sleep(0.3)
        assert engine.requests == []

        busy[0] = False
        assert (await rig.ended(begun["id"]))["status"] == "completed"
    await engine.stop()


async def test_those_who_wait_for_a_place_are_waited_for() -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 0.1
    limit = AdmissionLimits(running=1, queued=10, queue_timeout_s=0.0)
    async with edge_before(engine, admission=limit) as edge:
        assert not edge.routes.waited_for
        asking = [spawn(edge.ask(), name=f"client {number}") for number in range(3)]
        await until(lambda: edge.routes.waited_for)

        await asyncio.gather(*asking)

        assert not edge.routes.waited_for
    await engine.stop()


async def test_a_batch_waits_out_a_fleet_that_is_gone(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    async with batches_before(engine, directory=tmp_path) as rig:
        engine_id = next(iter(rig.edge.fleet)).spec.engine_id
        rig.edge.fleet.hold(engine_id, "test", "not now")
        begun = await rig.begin(numbered(5))
        await asyncio.sleep(0.3)
        assert (await rig.batch(begun["id"]))["request_counts"]["failed"] == 0

        rig.edge.fleet.release(engine_id, "test")
        ended = await rig.ended(begun["id"])

        assert ended["request_counts"] == {"total": 5, "completed": 5, "failed": 0}
    await engine.stop()


async def test_a_line_that_engines_fail_is_tried_three_times(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    engine.behaviour = "reset"
    async with batches_before(engine, directory=tmp_path) as rig:
        ended = await rig.ended((await rig.begin(numbered(1)))["id"])

        (failed,) = await rig.lines(ended["error_file_id"])
        assert failed["response"]["status_code"] == 502
        assert len(engine.requests) == 3
        assert ended["request_counts"] == {"total": 1, "completed": 0, "failed": 1}
    await engine.stop()


async def running(rig: Rig, engine: FakeEngine, lines: int, answered: int) -> Any:
    """A batch that stands still after so many answers."""
    begun = await rig.begin(numbered(lines))
    async with asyncio.timeout(10):
        while (await rig.batch(begun["id"]))["request_counts"]["completed"] < answered:
            await asyncio.sleep(0.005)
    engine.gap_s = 30.0
    return begun


async def test_a_restart_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 0.01
    async with batches_before(engine, directory=tmp_path) as rig:
        begun = await running(rig, engine, 40, 10)
        await until(lambda: rig.runner.running == 4)
        await asyncio.sleep(0.1)
        done = (await rig.batch(begun["id"]))["request_counts"]["completed"]
    await until(lambda: engine.aborted > 0)
    engine.gap_s = 0.0
    engine.requests.clear()
    async with batches_before(engine, directory=tmp_path) as rig:
        ended = await rig.ended(begun["id"])

        assert ended["status"] == "completed"
        assert ended["request_counts"] == {"total": 40, "completed": 40, "failed": 0}
        assert 10 <= done < 40
        assert len(engine.requests) == 40 - done
        lines = await rig.lines(ended["output_file_id"])
        assert [one["custom_id"] for one in lines] == [f"line-{n}" for n in range(40)]
    await engine.stop()


@pytest.mark.parametrize(("method", "path"), [("POST", "/cancel"), ("DELETE", "")])
async def test_a_batch_is_cancelled_and_keeps_what_it_has(
    tmp_path: Path, method: str, path: str
) -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 0.01
    async with batches_before(engine, directory=tmp_path) as rig:
        begun = await running(rig, engine, 40, 5)
        status, cancelled = await rig.call(method, f"/v1/batches/{begun['id']}{path}")
        ended = await rig.ended(begun["id"])

        assert (status, cancelled["status"] in ("cancelling", "cancelled")) == (200, True)
        assert ended["status"] == "cancelled"
        assert ended["cancelled_at"] >= ended["cancelling_at"]
        counts = ended["request_counts"]
        assert counts["total"] == 40 > counts["completed"] >= 5
        assert len(await rig.lines(ended["output_file_id"])) == counts["completed"]
        await until(lambda: rig.edge.inflight() == 0)
        again, error = await rig.call(method, f"/v1/batches/{begun['id']}{path}")
        assert (again, error["error"]["code"]) == (409, "conflict")
    await engine.stop()


async def test_a_batch_whose_time_is_over_says_so_of_every_line(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    engine.gap_s = 30.0
    async with batches_before(engine, directory=tmp_path) as rig:
        ended = await rig.ended((await rig.begin(numbered(6), completion_window="1s"))["id"])

        assert (ended["status"], ended["output_file_id"]) == ("expired", None)
        assert ended["expired_at"] >= ended["expires_at"]
        lines = await rig.lines(ended["error_file_id"])
        assert [one["error"]["code"] for one in lines] == ["batch_expired"] * 6
        assert all(one["response"] is None for one in lines)
    await engine.stop()


async def test_a_full_disk_holds_a_batch_up_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await FakeEngine().start()
    async with batches_before(engine, directory=tmp_path) as rig:
        file = await rig.upload(numbered(200))
        with no_file_beyond(100_000):
            body = {"input_file_id": file["id"], "endpoint": ENDPOINT}
            _, begun = await rig.call("POST", "/v1/batches", body)
            await until(lambda: "waits for the file store" in caplog.text)
            await asyncio.sleep(0.3)
            asked = len(engine.requests)
            assert rig.processor.unfinished == 1
        ended = await rig.ended(begun["id"])

        assert asked < 200
        assert ended["request_counts"] == {"total": 200, "completed": 200, "failed": 0}
        assert len(engine.requests) == 200
    await engine.stop()


async def test_a_client_sees_its_own_batches_only(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    keys = (ClientKey("a", "key-of-a"), ClientKey("b", "key-of-b"))
    async with batches_before(engine, directory=tmp_path, keys=keys) as rig:
        begun = await rig.begin(numbered(2), key="key-of-a")
        path = f"/v1/batches/{begun['id']}"

        assert (await rig.call("GET", path, key="key-of-a"))[0] == 200
        for method, at in (("GET", path), ("DELETE", path), ("POST", path + "/cancel")):
            assert (await rig.call(method, at, key="key-of-b"))[0] == 404
        assert (await rig.call("GET", "/v1/batches", key="key-of-b"))[1]["data"] == []
        await until(lambda: rig.processor.unfinished == 0)
        _, ended = await rig.call("GET", path, key="key-of-a")
        output = f"/v1/files/{ended['output_file_id']}/content"
        assert (await rig.call("GET", output, key="key-of-b"))[0] == 404
        assert (await rig.call("GET", output, key="key-of-a"))[0] == 200
        assert "key-of-a" not in str(engine.requests)
    await engine.stop()


async def test_batches_are_listed_newest_first_in_pages(tmp_path: Path) -> None:
    async with batches_before(directory=tmp_path) as rig:
        ids = [(await rig.begin(numbered(1)))["id"] for _ in range(3)]
        _, first = await rig.call("GET", "/v1/batches?limit=2")
        _, rest = await rig.call("GET", f"/v1/batches?limit=2&after={first['last_id']}")

        assert [b["id"] for b in first["data"]] == [ids[2], ids[1]]
        assert (first["has_more"], rest["has_more"]) == (True, False)
        assert [b["id"] for b in rest["data"]] == [ids[0]]
