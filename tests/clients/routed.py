"""The whole router in front of emulated engines, for clients that others wrote."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from lodestar_router.emulator.fleet import spec_of
from tests.emulator.server_rig import language, serving, settings, until


@asynccontextmanager
async def routed_url(directory: Path, *flags: str, engines: int = 2) -> AsyncIterator[str]:
    """Where the router listens, once all engines are up."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(settings())) for _ in range(engines)]
        argv = [
            "--engines", "http://a:1", "--port", "0", "--host", "127.0.0.1", "--no-trainer",
            "--seed", "1", "--metrics-interval", "0.05", "--tokenizer", language().root,
            "--enable-batch-api", "--file-storage-path", str(directory), *flags,
        ]  # fmt: skip
        specs = tuple(spec_of(server.settings) for server in servers)
        router = Router(replace(parse(argv, {}), engines=specs))
        try:
            port = await router.start()
            await until(lambda: all(state.up for state in router.fleet))
            yield f"http://127.0.0.1:{port}"
        finally:
            await router.stop(drain_s=0.5)
