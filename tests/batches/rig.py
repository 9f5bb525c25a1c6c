"""Files and batches in front of fake engines, with a client for them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from lodestar_router.batches.batches_api import BatchesApi
from lodestar_router.batches.files_api import FilesApi
from lodestar_router.batches.line_runner import LineRunner
from lodestar_router.batches.processor import Processor
from lodestar_router.batches.store import Store
from lodestar_router.config.client_keys import ClientKey
from lodestar_router.proxy.request_reader import Limits
from lodestar_router.proxy.service import Service
from tests.proxy.harness import AnyEngine, Edge, edge_before

ENDPOINT = "/v1/completions"
LIMITS = Limits(body_bytes=200_000)
ENDED = ("completed", "failed", "expired", "cancelled")


class Rig:
    """A router with files and batches."""

    def __init__(self, edge: Edge, store: Store, processor: Processor, runner: LineRunner) -> None:
        self.edge = edge
        self.store = store
        self.processor = processor
        self.runner = runner
        self._url = f"http://127.0.0.1:{edge.port}"

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str = ""
    ) -> tuple[int, Any]:
        """(status, JSON, or the bytes of what is none)."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        form = body if isinstance(body, aiohttp.FormData) else None
        async with (
            aiohttp.ClientSession() as http,
            http.request(
                method, self._url + path, data=form, json=None if form else body, headers=headers
            ) as answer,
        ):
            content = await answer.read()
            is_json = answer.content_type == "application/json"
            return answer.status, json.loads(content) if is_json else content

    async def upload(self, content: bytes, *, name: str = "in.jsonl", key: str = "") -> Any:
        """The file object."""
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", content, filename=name, content_type="application/jsonl")
        status, shown = await self.call("POST", "/v1/files", form, key=key)
        assert status == 200, shown
        return shown

    async def begin(self, content: bytes, *, key: str = "", **fields: Any) -> Any:
        """The batch object of a new batch."""
        file = await self.upload(content, key=key)
        body = {"input_file_id": file["id"], "endpoint": ENDPOINT, **fields}
        status, batch = await self.call("POST", "/v1/batches", body, key=key)
        assert status == 200, batch
        return batch

    async def batch(self, batch_id: str) -> Any:
        """The batch object as it is now."""
        status, batch = await self.call("GET", f"/v1/batches/{batch_id}")
        assert status == 200, batch
        return batch

    async def ended(self, batch_id: str, limit_s: float = 20.0) -> Any:
        """The batch object once the batch has ended."""
        async with asyncio.timeout(limit_s):
            while (batch := await self.batch(batch_id))["status"] not in ENDED:
                await asyncio.sleep(0.02)
        return batch

    async def lines(self, file_id: str | None) -> list[Any]:
        """What an output file holds."""
        if file_id is None:
            return []
        status, content = await self.call("GET", f"/v1/files/{file_id}/content")
        assert status == 200, content
        return [json.loads(line) for line in content.splitlines()]


@asynccontextmanager
async def batches_before(
    *engines: AnyEngine,
    directory: Path,
    concurrency: int = 4,
    limit_bytes: int = 0,
    keys: Sequence[ClientKey] = (),
    busy: Callable[[], bool] = lambda: False,
) -> AsyncIterator[Rig]:
    """Serve in front of `engines`, with what an earlier rig left in `directory`."""
    services: list[Service] = []
    async with edge_before(*engines, keys=keys, services=services, limits=LIMITS) as edge:
        store = Store(directory, limit_bytes=limit_bytes)
        await store.open()
        runner = LineRunner(
            edge.routes, busy=busy, limits=LIMITS, concurrency=concurrency, pause_s=(0.02, 0.05)
        )
        processor = Processor(store, runner, most_bytes=LIMITS.body_bytes, store_again_s=0.05)
        services += [
            FilesApi(store, edge.metrics).service,
            BatchesApi(store, processor, edge.metrics).service,
        ]
        try:
            await processor.start()
            yield Rig(edge, store, processor, runner)
        finally:
            await processor.stop()
            await store.close()


def line(custom_id: str, *, url: str = ENDPOINT, method: str = "POST", **body: Any) -> bytes:
    """A line of a batch's input."""
    body = {"model": "tiny", "prompt": custom_id, **body}
    written = {"custom_id": custom_id, "method": method, "url": url, "body": body}
    return json.dumps(written).encode()


def jsonl(lines: Iterable[bytes]) -> bytes:
    """An input file."""
    return b"".join(one + b"\n" for one in lines)


def numbered(count: int, **body: Any) -> bytes:
    """An input file of so many lines."""
    return jsonl(line(f"line-{number}", **body) for number in range(count))
