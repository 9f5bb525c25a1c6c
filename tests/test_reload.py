"""New settings reach the router, or are said not to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lodestar_router.config import Config, parse
from lodestar_router.errors import ConfigError
from lodestar_router.reload import Reloader
from lodestar_router.tasks import cancel, spawn

CONFIG = parse(["--engines", "http://a"], {})


class Settings:
    """Settings that a test changes, and what was applied of them."""

    def __init__(self) -> None:
        self.config = CONFIG
        self.wrong = ""
        self.reads = 0
        self.applied: list[Config] = []
        self.waiting: tuple[str, ...] = ()
        self.reloader = Reloader(self.read, self.apply, said=["old news"])

    def read(self) -> Config:
        self.reads += 1
        if self.wrong:
            raise ConfigError(self.wrong)
        return self.config

    async def apply(self, config: Config) -> tuple[str, ...]:
        self.applied.append(config)
        return self.waiting


@asynccontextmanager
async def following(settings: Settings, path: Path) -> AsyncIterator[None]:
    task = spawn(settings.reloader.follow(path, every_s=0.01), name="follow")
    try:
        yield
    finally:
        await cancel(task)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_only_new_content_is_read(tmp_path: Path) -> None:
    settings, path = Settings(), tmp_path / "file"
    path.write_text("1")
    async with following(settings, path):
        await until(lambda: settings.reads == 1)
        path.write_text("1")
        await asyncio.sleep(0.05)
        assert settings.reads == 1

        path.write_text("2")

        await until(lambda: settings.reads == 2)


async def test_file_swapped_by_a_link_as_kubernetes_does_is_seen(tmp_path: Path) -> None:
    settings, path = Settings(), tmp_path / "file"
    (tmp_path / "v1").write_text("1")
    (tmp_path / "v2").write_text("2")
    path.symlink_to("v1")
    async with following(settings, path):
        await until(lambda: settings.reads == 1)

        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").rename(path)

        await until(lambda: settings.reads == 2)


async def test_wrong_settings_change_nothing_and_are_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = Settings()
    settings.wrong = "file: bad"

    assert not await settings.reloader.reload()
    assert not await settings.reloader.reload()

    assert settings.applied == []
    assert settings.reloader.error == "file: bad"
    assert [r.getMessage() for r in caplog.records] == [
        "the configuration stays as it was: file: bad"
    ]
    settings.wrong = ""
    assert await settings.reloader.reload()
    assert settings.reloader.error == ""


async def test_missing_file_is_said_and_read_when_it_is_back(tmp_path: Path) -> None:
    settings, path = Settings(), tmp_path / "file"
    path.write_text("1")
    async with following(settings, path):
        await until(lambda: settings.reads == 1)
        path.unlink()
        await until(lambda: "cannot be read" in settings.reloader.error)

        path.write_text("1")

        await until(lambda: settings.reads == 2 and not settings.reloader.error)


async def test_warnings_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings()
    settings.config = replace(CONFIG, warnings=("old news", "odd key"))
    settings.waiting = ("port",)

    await settings.reloader.reload()
    await settings.reloader.reload()

    assert [record.getMessage() for record in caplog.records] == [
        "odd key",
        "port has changed; that needs a restart",
    ]
