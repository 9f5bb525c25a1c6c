"""/sleep, /wake_up and /is_sleeping through the whole router."""

from pathlib import Path

from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, Reply, completion, get, post
from tests.test_assembly import ask, router_before, until

ALONE = "--no-trainer"


async def call(port: int, request: bytes) -> Reply:
    client = await RawClient.to(port)
    await client.send(request)
    reply = await client.reply()
    await client.close()
    return reply


def sleeper() -> FakeEngine:
    engine = FakeEngine()
    engine.sleeping = False
    return engine


async def test_a_sleeping_engine_gets_nothing_until_it_is_awake() -> None:
    first, second = await sleeper().start(), await sleeper().start()
    async with router_before(first, second, flags=ALONE) as (router, port):
        asleep = router.engine_ids[0]
        slept = await call(port, post(f"/sleep?id={asleep}&level=2", b"", "X-Request-Id: mine"))

        assert (slept.status, slept.json()) == (200, {"status": "success"})
        assert slept.headers["x-request-id"] == "mine"
        target, headers, _ = first.requests[-1]
        assert target == "/sleep?level=2"
        assert "mine" in headers.values()
        engines = {(await ask(port, completion()))[1]["x-lodestar-engine"] for _ in range(6)}
        assert engines == {router.engine_ids[1]}
        shown = {e["engine_id"]: e for e in (await call(port, get("/engines"))).json()}
        assert [shown[e]["sleeping"] for e in router.engine_ids] == [True, False]
        assert all(e["created"] > 1_700_000_000 for e in shown.values())
        said = await call(port, get(f"/is_sleeping?id={asleep}"))
        assert said.json() == {"is_sleeping": True}

        woken = await call(port, post(f"/wake_up?id={asleep}", b""))

        assert (woken.status, woken.json()) == (200, {"status": "success"})
        engines = {(await ask(port, completion()))[1]["x-lodestar-engine"] for _ in range(20)}
        assert engines == set(router.engine_ids)
    await first.stop()
    await second.stop()


async def test_what_the_engine_refuses_comes_back_and_it_goes_on() -> None:
    engine = await sleeper().start()
    async with router_before(engine, flags=ALONE) as (router, port):
        refused = await call(port, post(f"/sleep?id={router.engine_ids[0]}&level=9", b""))

        assert (refused.status, refused.json()["error"]["message"]) == (400, "no such level")
        assert (await ask(port, completion()))[0] == 200
    await engine.stop()


async def test_an_engine_that_is_gone_is_502_and_one_without_sleep_mode_404() -> None:
    engine = await FakeEngine().start()
    async with router_before(engine, flags=ALONE) as (router, port):
        path = f"/is_sleeping?id={router.engine_ids[0]}"
        assert (await call(port, get(path))).status == 404
        assert (await ask(port, completion()))[0] == 200

        await engine.stop()
        gone = await call(port, get(path))

        assert (gone.status, gone.json()["error"]["code"]) == (502, "engine_failed")
        assert "127.0.0.1" not in gone.json()["error"]["message"]


async def test_who_is_meant_must_be_said() -> None:
    engine = await sleeper().start()
    async with router_before(engine, flags=ALONE) as (_, port):
        for request, status in (
            (post("/sleep", b""), 400),
            (post("/sleep?id=nobody", b""), 400),
            (get("/sleep?id=nobody"), 405),
            (post("/is_sleeping?id=nobody", b""), 405),
        ):
            reply = await call(port, request)
            assert reply.status == status
            assert reply.json()["error"]["message"]
        assert engine.requests == []
    await engine.stop()


async def test_only_admins_put_engines_to_sleep(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("team:client-key\nops:admin-key admin\n")
    engine = await sleeper().start()
    flags = f"{ALONE} --client-keys-file {tmp_path / 'keys'}"
    async with router_before(engine, flags=flags) as (router, port):
        path = f"/sleep?id={router.engine_ids[0]}"
        statuses = [
            (await call(port, post(path, b"", f"x-api-key: {key}"))).status
            for key in ("nothing-known", "client-key", "admin-key")
        ]

        assert statuses == [401, 403, 200]
        await until(lambda: bool(router.fleet[router.engine_ids[0]].holds))
    await engine.stop()
