"""/v1/batches: create, retrieve, list, cancel.

POST /v1/batches/{id}/cancel    as OpenAI has it
DELETE /v1/batches/{id}         the same, as production-stack's router has it
"""

import re
import secrets
from typing import Any

import msgspec

from lodestar_router.batches.processor import Processor
from lodestar_router.batches.queries import page, read_query
from lodestar_router.batches.records import BatchRecord, ConflictError, Status, TooManyError
from lodestar_router.batches.store import Store, unix_s
from lodestar_router.errors import RequestError
from lodestar_router.proxy.endpoints import Call, Tree
from lodestar_router.proxy.json_depth import check_depth
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.routed_paths import JSON_PATHS

_MOST_LISTED = 100
_MOST_UNFINISHED = 100  # of one client
_MOST_DEPTH = 8
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WINDOW = re.compile(r"(\d{1,6})([smhd])")
_MOST_WINDOW_S = 30 * 86_400


class _Create(msgspec.Struct):
    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None


_create = msgspec.json.Decoder(_Create).decode


class BatchesApi:
    """The endpoints."""

    def __init__(self, store: Store, processor: Processor, metrics: Metrics) -> None:
        self._store = store
        self._processor = processor
        self.service = Tree(
            "/v1/batches",
            metrics,
            all={b"POST": self._begin, b"GET": self._list},
            one={b"GET": self._retrieve, b"DELETE": self._cancel},
            parts={"cancel": {b"POST": self._cancel}},
        )

    async def _begin(self, call: Call) -> None:
        owner = call.request.client
        wanted = _read(call.request.body)
        window_s = _seconds(wanted.completion_window)
        await self._store.file(wanted.input_file_id, owner)
        unfinished = await self._store.do(lambda database: database.unfinished(owner))
        if len(unfinished) >= _MOST_UNFINISHED:
            raise TooManyError(f"{_MOST_UNFINISHED} batches are not finished yet", 60)
        now = unix_s()
        record = BatchRecord(
            batch_id=f"batch_{secrets.token_hex(12)}",
            owner=owner,
            endpoint=wanted.endpoint,
            input_file_id=wanted.input_file_id,
            completion_window=wanted.completion_window,
            status=Status.VALIDATING,
            created_at=now,
            expires_at=now + window_s,
            metadata=wanted.metadata,
        )
        await self._store.do(lambda database: database.add_batch(record))
        self._processor.begin(record)
        call.answer(record.shown())

    async def _list(self, call: Call) -> None:
        query = read_query(call.request.target, usual=20, most=_MOST_LISTED)
        records = await self._store.do(
            lambda database: database.batches(
                call.request.client, after=query.after, limit=query.limit + 1
            )
        )
        call.answer(page(records, query.limit, BatchRecord.shown))

    async def _retrieve(self, call: Call) -> None:
        call.answer((await self._record(call)).shown())

    async def _cancel(self, call: Call) -> None:
        record = await self._record(call)
        if not await self._processor.cancel(record.batch_id):
            raise ConflictError("the batch has ended, or is about to, and cannot be cancelled")
        call.answer((await self._record(call)).shown())

    async def _record(self, call: Call) -> BatchRecord:
        return await self._store.batch(call.item, call.request.client)


def _read(body: bytes) -> _Create:
    check_depth(body, _MOST_DEPTH)
    try:
        wanted = _create(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request body is no batch: {error}") from error
    if wanted.endpoint not in JSON_PATHS:
        raise RequestError("'endpoint' is none that this router routes; /v1/chat/completions is")
    _check_metadata(wanted.metadata)
    return wanted


def _check_metadata(metadata: dict[str, Any] | None) -> None:
    """OpenAI's own limits."""
    for key, value in (metadata or {}).items():
        if len(key) > 64 or len(value) > 512:
            raise RequestError("'metadata' has keys of up to 64 and values of up to 512 characters")
    if metadata and len(metadata) > 16:
        raise RequestError("'metadata' has up to 16 keys")


def _seconds(window: str) -> int:
    match = _WINDOW.fullmatch(window)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
    if not 0 < seconds <= _MOST_WINDOW_S:
        raise RequestError("'completion_window' must be a time such as 24h, 30d at most")
    return seconds
