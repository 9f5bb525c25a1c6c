"""Sources in use: their union, and what happens when they are exchanged."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from lodestar_router.core.types import EngineId, EngineSpec
from lodestar_router.discovery.base import Discovered, Source
from lodestar_router.discovery.discovery import Discovery
from lodestar_router.discovery.static import StaticSource
from lodestar_router.errors import ConfigError
from tests.discovery.rig import until


def spec(name: str) -> EngineSpec:
    return EngineSpec(engine_id=EngineId(name), url=f"http://{name}")


class Told:
    """A source that tells what a test puts into it."""

    def __init__(self, *names: str, synced: bool = True) -> None:
        self.engines = [Discovered(spec=spec(name), uid="u") for name in names]
        self.synced = synced
        self.changed: Callable[[], None] = lambda: None
        self.broken = asyncio.Event()

    def current(self) -> Sequence[Discovered]:
        return self.engines

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        return {"pods": {"lists": 3}}

    async def run(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        changed()
        await self.broken.wait()


class Applied:
    """What was applied last."""

    def __init__(self) -> None:
        self.engines: list[Discovered] = []
        self.times = 0
        self.takes_s = 0.0

    async def __call__(self, engines: Sequence[Discovered]) -> None:
        await asyncio.sleep(self.takes_s)
        self.engines = list(engines)
        self.times += 1

    @property
    def names(self) -> list[str]:
        return sorted(engine.spec.engine_id for engine in self.engines)


@asynccontextmanager
async def discovering() -> AsyncIterator[tuple[Discovery, Applied]]:
    applied = Applied()
    discovery = Discovery(applied)
    try:
        yield discovery, applied
    finally:
        await discovery.stop()


def maker(source: Source) -> "Callable[[], asyncio.Future[Source]]":
    def make() -> "asyncio.Future[Source]":
        made: asyncio.Future[Source] = asyncio.get_running_loop().create_future()
        made.set_result(source)
        return made

    return make


async def test_union_of_all_sources_is_applied_and_followed() -> None:
    async with discovering() as (discovery, applied):
        told = Told("b")
        await discovery.use([("static", maker(StaticSource([spec("a")]))), ("told", maker(told))])
        await until(lambda: applied.names == ["a", "b"])

        told.engines = [Discovered(spec=spec("c"))]
        told.changed()

        await until(lambda: applied.names == ["a", "c"])


async def test_engine_of_two_sources_is_one() -> None:
    async with discovering() as (discovery, applied):
        await discovery.use([("1", maker(Told("a"))), ("2", maker(Told("a", "b")))])

        await until(lambda: applied.names == ["a", "b"])


async def test_source_with_an_equal_key_runs_on() -> None:
    async with discovering() as (discovery, applied):
        first, second = Told("a"), Told("b")
        await discovery.use([({"key": 1}, maker(first))])
        await until(lambda: applied.names == ["a"])

        await discovery.use([({"key": 1}, maker(second))])
        first.engines = []
        first.changed()

        await until(lambda: applied.names == [])


async def test_old_engines_stay_until_the_new_source_has_told_its_own() -> None:
    async with discovering() as (discovery, applied):
        await discovery.use([("old", maker(Told("a", "b")))])
        await until(lambda: applied.names == ["a", "b"])

        new = Told(synced=False)
        await discovery.use([("new", maker(new))])
        await asyncio.sleep(0.05)
        assert applied.names == ["a", "b"]
        new.engines, new.synced = [Discovered(spec=spec("b"))], True
        new.changed()

        await until(lambda: applied.names == ["b"])


async def test_source_that_cannot_be_made_changes_nothing() -> None:
    async def fails() -> Source:
        raise ConfigError("no credentials")

    async with discovering() as (discovery, applied):
        await discovery.use([("old", maker(Told("a")))])
        await until(lambda: applied.names == ["a"])

        with pytest.raises(ConfigError):
            await discovery.use([("new", fails)])
        await asyncio.sleep(0.05)

        assert applied.names == ["a"]
        assert not discovery.failed


async def test_changes_while_one_is_applied_are_one() -> None:
    async with discovering() as (discovery, applied):
        applied.takes_s = 0.05
        told = Told("a")
        await discovery.use([("told", maker(told))])
        await until(lambda: applied.times == 1)
        told.changed()
        await asyncio.sleep(0.01)

        for number in range(100):
            told.engines = [Discovered(spec=spec(f"e{number}"))]
            told.changed()
        await until(lambda: applied.names == ["e99"])

        assert applied.times <= 3


async def test_applied_waits_for_all_sources() -> None:
    async with discovering() as (discovery, applied):
        late = Told(synced=False)
        await discovery.use([("a", maker(Told("a"))), ("late", maker(late))])
        await until(lambda: applied.names == ["a"])
        assert not discovery.applied.is_set()

        late.synced = True
        late.changed()

        await asyncio.wait_for(discovery.applied.wait(), 10)


async def test_source_that_ends_is_a_failure_and_its_engines_stay() -> None:
    async with discovering() as (discovery, applied):
        told = Told("a", synced=False)
        await discovery.use([("told", maker(told))])
        assert not discovery.failed

        told.broken.set()

        await until(lambda: discovery.failed)
        assert applied.names == ["a"]


async def test_wrong_description_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async with discovering() as (discovery, applied):
        told = Told()
        told.engines = [Discovered(spec=spec("a"), warnings=("odd",))]
        await discovery.use([("told", maker(told))])
        await until(lambda: applied.times == 1)
        told.changed()
        await until(lambda: applied.times == 2)

    assert [record.getMessage() for record in caplog.records].count("engine a: odd") == 1


async def test_gauges_tell_whether_engines_are_known_and_what_happened() -> None:
    async with discovering() as (discovery, _):
        told = Told("a", synced=False)
        await discovery.use([("told", maker(told))])
        before = {name: value for name, _, _, value in discovery.gauges()}
        told.synced = True

        rows = {(name, *labels.values()): value for name, _, labels, value in discovery.gauges()}

        assert before["lodestar:discovery_up"] == 0.0
        assert rows[("lodestar:discovery_up",)] == 1.0
        assert rows[("lodestar:discovery_events", "pods", "lists")] == 3
