from collections.abc import AsyncIterator

import pytest

from tests.discovery.fake_api import FakeApiServer


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    running = await FakeApiServer().start()
    yield running
    await running.stop()
