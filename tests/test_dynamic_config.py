"""A running router whose settings change: requests, views and the model are not disturbed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, completion, get, post
from tests.test_assembly import ask, until


class Changing:
    """A router that follows a file; the file."""

    def __init__(self, router: Router, path: Path) -> None:
        self.router = router
        self.path = path
        self.port = 0

    async def change(self, **content: object) -> bool:
        """Write the file and have it read now, not at the next look."""
        self.path.write_text(json.dumps(content))
        return await self.router.reload()

    async def get(self, path: str) -> Any:
        client = await RawClient.to(self.port)
        await client.send(get(path))
        reply = await client.reply()
        await client.close()
        return reply.json()

    def urls(self) -> list[str]:
        return [state.spec.url for state in self.router.fleet]


@asynccontextmanager
async def changing(tmp_path: Path, flags: str = "", **content: object) -> AsyncIterator[Changing]:
    path = tmp_path / "dynamic.json"
    path.write_text(json.dumps(content))
    argv = ["--dynamic-config-json", str(path), "--port", "0", "--host", "127.0.0.1"]
    argv += ["--metrics-interval", "0.05", "--seed", "1", *(flags or "--no-trainer").split()]
    it = Changing(Router(parse(argv, {}), lambda: parse(argv, {})), path)
    try:
        it.port = await it.router.start()
        yield it
    finally:
        await it.router.stop(drain_s=0.5)


async def test_file_is_followed(tmp_path: Path) -> None:
    one, other = await FakeEngine().start(), await FakeEngine().start()
    async with changing(tmp_path, static_backends=one.url) as it:
        it.path.write_text(json.dumps({"static_backends": f"{one.url},{other.url}"}))

        await until(lambda: it.urls() == [one.url, other.url])
    await one.stop()
    await other.stop()


async def test_engines_that_stay_keep_what_is_known_of_them(tmp_path: Path) -> None:
    one, other, third = [await FakeEngine().start() for _ in range(3)]
    async with changing(tmp_path, static_backends=f"{one.url},{other.url}") as it:
        await ask(it.port, completion())
        states = {state.spec.url: state for state in it.router.fleet}

        assert await it.change(static_backends=f"{third.url},{other.url}")
        await until(lambda: set(it.urls()) == {other.url, third.url})

        assert it.router.fleet[states[other.url].spec.engine_id] is states[other.url]
        assert states[other.url].up
        assert (await ask(it.port, completion()))[0] == 200
    for engine in (one, other, third):
        await engine.stop()


async def test_stream_on_an_engine_that_leaves_comes_to_its_end(tmp_path: Path) -> None:
    one, other = await FakeEngine().start(), await FakeEngine().start()
    one.tokens, one.gap_s = 20, 0.02
    async with changing(tmp_path, static_backends=one.url) as it:
        client = await RawClient.to(it.port)
        await client.send(post("/v1/completions", completion(stream=True)))
        await client.head()

        assert await it.change(static_backends=other.url)
        await until(lambda: it.urls() == [other.url])
        body = b"".join([chunk async for chunk in client.chunks()])
        await client.close()

        assert body.count(b"data: ") == 22
        assert body.endswith(b"data: [DONE]\n\n")
        assert one.aborted == 0
    await one.stop()
    await other.stop()


async def test_policy_is_switched_and_the_learned_one_stays_as_it_is(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    async with changing(tmp_path, static_backends=engine.url) as it:
        learned = it.router.steering.learned
        assert (await ask(it.port, completion()))[1]["x-lodestar-policy"] == "lodestar"

        await it.change(static_backends=engine.url, routing_logic="roundrobin")
        assert (await ask(it.port, completion()))[1]["x-lodestar-policy"] == "roundrobin"
        await it.change(static_backends=engine.url, routing_logic="lodestar")

        assert (await ask(it.port, completion()))[1]["x-lodestar-policy"] == "lodestar"
        assert learned is not None
        assert it.router.steering.policy is learned
    await engine.stop()


async def test_trainer_runs_on_through_a_switch_and_starts_with_the_first(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    content = {"static_backends": engine.url, "routing_logic": "roundrobin"}
    async with changing(tmp_path, "--no-kv-events", **content) as it:
        assert it.router.steering.learned is None

        await it.change(static_backends=engine.url, routing_logic="lodestar")
        trainer = it.router.steering.trainer
        assert trainer is not None
        await until(lambda: trainer.pid is not None)
        await it.change(static_backends=engine.url, routing_logic="roundrobin")
        await it.change(static_backends=engine.url, routing_logic="lodestar")

        assert it.router.steering.trainer is trainer
        assert trainer.counters.starts == 1
    await engine.stop()


async def test_wrong_file_keeps_everything_and_health_says_why(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    async with changing(tmp_path, static_backends=engine.url) as it:
        assert not await it.change(static_backends="nowhere")

        health = await it.get("/health")
        assert health["status"] == "healthy"
        assert health["dynamic_config"]["static_backends"] == engine.url
        assert "'nowhere' does not start with http://" in health["dynamic_config_error"]
        assert (await ask(it.port, completion()))[0] == 200

        assert await it.change(static_backends=engine.url, routing_logic="random")
        health = await it.get("/health")
        assert "dynamic_config_error" not in health
        assert health["dynamic_config"]["routing_logic"] == "random"
        assert (await it.get("/debug/config"))["routing_logic"] == "random"
    await engine.stop()


async def test_alias_is_sent_on_as_its_model_and_can_change(tmp_path: Path) -> None:
    engine = await FakeEngine().start()
    body = b'{"model": "gpt", "prompt": "\\u00e9", "temperature": 1.0, "n":1}'
    async with changing(tmp_path, static_backends=engine.url, static_aliases="gpt:tiny") as it:
        client = await RawClient.to(it.port)
        await client.send(post("/v1/completions", body))
        assert (await client.reply()).status == 200
        await client.close()
        assert engine.requests[-1][2] == (
            b'{"model":"tiny","prompt":"\\u00e9","temperature":1.0,"n":1}'
        )

        await it.change(static_backends=engine.url, static_aliases="chat:tiny")

        assert (await ask(it.port, completion(model="gpt")))[0] == 404
        assert (await ask(it.port, completion(model="chat")))[0] == 200
    await engine.stop()


async def test_session_routing_can_be_switched_to_and_its_key_changed(tmp_path: Path) -> None:
    engines = [await FakeEngine().start() for _ in range(3)]
    backends = ",".join(engine.url for engine in engines)
    async with changing(tmp_path, static_backends=backends, routing_logic="roundrobin") as it:
        assert not await it.change(static_backends=backends, routing_logic="session")
        health = await it.get("/health")
        assert health["dynamic_config_error"] == "--routing-logic session needs --session-key"

        for key in ("user", "x-chat"):
            assert await it.change(
                static_backends=backends, routing_logic="session", session_key=key
            )
            answers = [await ask(it.port, completion(**{key: "u1"})) for _ in range(4)]
            assert {headers["x-lodestar-reason"] for _, headers in answers} == {"session"}
            assert len({headers["x-lodestar-engine"] for _, headers in answers}) == 1
    for engine in engines:
        await engine.stop()


async def test_requests_while_settings_change_all_succeed(tmp_path: Path) -> None:
    engines = [await FakeEngine().start() for _ in range(3)]
    statuses: list[int] = []
    async with changing(tmp_path, static_backends=engines[0].url) as it:
        enough = asyncio.Event()

        async def keep_asking() -> None:
            while not enough.is_set():
                statuses.append((await ask(it.port, completion()))[0])

        asking = asyncio.gather(*(keep_asking() for _ in range(4)))
        for number in range(12):
            pair = (engines[number % 3].url, engines[(number + 1) % 3].url)
            policy = ("roundrobin", "lodestar")[number % 2]
            assert await it.change(static_backends=",".join(pair), routing_logic=policy)
            await until(lambda pair=pair: set(it.urls()) == set(pair))  # type: ignore[misc]
            await until(lambda: all(state.up for state in it.router.fleet))
        enough.set()
        await asking

    assert len(statuses) > 20
    assert set(statuses) == {200}
    for engine in engines:
        await engine.stop()
