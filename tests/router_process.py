"""The router as a process of its own, for what only a process shows: signals, exit codes."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.proxy.harness import RawClient, Reply, get

_START_S = 60.0  # loading libraries on a busy machine


class RouterProcess:
    """A process that listens."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.port = 0
        self.log: list[str] = []
        self._reader: asyncio.Task[None] | None = None

    async def listening(self) -> None:
        """Return once it has said where it listens."""
        assert self.process.stderr is not None
        while not self.port:
            line = (await self.process.stderr.readline()).decode()
            assert line, "".join(self.log)
            self.log.append(line)
            if found := re.search(r" on https?://[^ ]+:(\d+), ", line):
                self.port = int(found[1])
        self._reader = asyncio.get_running_loop().create_task(self._read_on())

    async def _read_on(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode())

    async def said(self, words: str) -> None:
        """Return once it has logged the words."""
        async with asyncio.timeout(20):
            while not any(words in line for line in self.log):
                await asyncio.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def exit_code(self) -> int:
        """Wait for its end."""
        async with asyncio.timeout(20):
            return await self.process.wait()

    async def get(self, path: str) -> Reply:
        """One GET over a connection of its own."""
        client = await RawClient.to(self.port)
        await client.send(get(path))
        reply = await client.reply()
        await client.close()
        return reply

    async def refuses_connections(self) -> bool:
        """Whether nobody listens any more."""
        try:
            client = await RawClient.to(self.port)
        except ConnectionRefusedError:
            return True
        await client.close()
        return False

    async def end(self) -> None:
        """Leave nothing behind."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        if self._reader is not None:
            await self._reader


@asynccontextmanager
async def router_process(*flags: str, **environment: str) -> AsyncIterator[RouterProcess]:
    """A router with these flags, on a free port of 127.0.0.1, without a trainer."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lodestar_router", "--host", "127.0.0.1", "--port", "0",
        "--no-trainer", *flags,
        env={**os.environ, **environment},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    router = RouterProcess(process)
    try:
        async with asyncio.timeout(_START_S):
            await router.listening()
        yield router
    finally:
        await router.end()
