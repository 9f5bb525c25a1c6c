"""/v1/files: upload, list, retrieve, content, delete.

A client sees its own files: those made with a key of its name.
"""

from lodestar_router.batches.queries import page, read_query
from lodestar_router.batches.records import FileRecord
from lodestar_router.batches.sending import send_file
from lodestar_router.batches.store import Store
from lodestar_router.errors import RequestError
from lodestar_router.proxy.endpoints import Call, Tree
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.multipart import Part, is_form, read_form

_MOST_LISTED = 10_000
_NAME_CHARS = 255
_PURPOSE_CHARS = 64


class FilesApi:
    """The endpoints."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self.service = Tree(
            "/v1/files",
            metrics,
            all={b"POST": self._upload, b"GET": self._list},
            one={b"GET": self._retrieve, b"DELETE": self._delete},
            parts={"content": {b"GET": self._content}},
        )

    async def _upload(self, call: Call) -> None:
        request = call.request
        content_type = request.header(b"content-type")
        if content_type is None or not is_form(content_type):
            raise RequestError("a file is uploaded as multipart/form-data")
        parts = read_form(content_type, request.body)
        file = _only(parts, "file")
        if file is None or file.filename is None:
            raise RequestError("the form has no 'file'")
        purpose = _only(parts, "purpose")
        record = await self._store.add_file(
            request.client,
            filename=_shown_name(file.filename),
            purpose="unknown" if purpose is None else _purpose(purpose.text(request.body)),
            content=memoryview(request.body)[file.start : file.stop],
        )
        call.answer(record.shown())

    async def _list(self, call: Call) -> None:
        query = read_query(call.request.target, usual=_MOST_LISTED, most=_MOST_LISTED)
        records = await self._store.do(
            lambda database: database.files(
                call.request.client,
                after=query.after,
                limit=query.limit + 1,
                newest_first=query.newest_first,
                purpose=query.purpose,
            )
        )
        call.answer(page(records, query.limit, FileRecord.shown))

    async def _retrieve(self, call: Call) -> None:
        call.answer((await self._record(call)).shown())

    async def _content(self, call: Call) -> None:
        record = await self._record(call)
        await send_file(call, await self._store.open_file(record), record.size_bytes)

    async def _delete(self, call: Call) -> None:
        record = await self._record(call)
        await self._store.remove_file(record.file_id, record.owner)
        call.answer({"id": record.file_id, "object": "file", "deleted": True})

    async def _record(self, call: Call) -> FileRecord:
        return await self._store.file(call.item, call.request.client)


def _only(parts: list[Part], name: str) -> Part | None:
    found = [part for part in parts if part.name == name]
    if len(found) > 1:
        raise RequestError(f"the form has more than one '{name}'")
    return found[0] if found else None


def _shown_name(filename: str) -> str:
    """The last part of a name, without what a terminal would act on."""
    last = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[:_NAME_CHARS] or "file"


def _purpose(purpose: str) -> str:
    if not purpose.isprintable() or not 0 < len(purpose) <= _PURPOSE_CHARS:
        raise RequestError("'purpose' must be a short word such as batch")
    return purpose
