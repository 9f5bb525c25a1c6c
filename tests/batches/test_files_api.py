"""/v1/files over real sockets."""

import asyncio
import os
from pathlib import Path

import pytest

from lodestar_router.config.client_keys import ClientKey
from tests.batches.rig import batches_before
from tests.proxy.forms import form, part, post_form
from tests.proxy.harness import get

KEYS = (
    ClientKey("team-a", "key-of-a"),
    ClientKey("team-a", "new-key-of-a"),
    ClientKey("b", "key-of-b"),
)


async def test_a_file_s_life(tmp_path: Path) -> None:
    content = os.urandom(150_000)
    async with batches_before(directory=tmp_path) as rig:
        shown = await rig.upload(content)

        path = f"/v1/files/{shown['id']}"
        assert shown["filename"] == "in.jsonl"
        assert (shown["object"], shown["bytes"], shown["purpose"]) == ("file", 150_000, "batch")
        assert await rig.call("GET", path) == (200, shown)
        assert await rig.call("GET", path + "/content") == (200, content)
        listed = await rig.call("GET", "/v1/files?purpose=batch")
        assert listed[1]["data"] == [shown]
        assert listed[1]["has_more"] is False
        assert await rig.call("DELETE", path) == (
            200, {"id": shown["id"], "object": "file", "deleted": True},
        )  # fmt: skip
        assert (await rig.call("GET", path))[0] == 404
        assert (await rig.call("GET", path + "/content"))[0] == 404
        assert (await rig.call("DELETE", path))[0] == 404
        assert list((tmp_path / "files").iterdir()) == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a b.jsonl", "a b.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("C:\\\\temp\\\\x", "x"),
        ("a\x1b[31m\x00b", "a[31mb"),
        ("x" * 300, "x" * 255),
        ("..", ".."),
        ("", "file"),
    ],
)
async def test_a_file_s_name_is_only_shown(tmp_path: Path, given: str, shown: str) -> None:
    async with batches_before(directory=tmp_path) as rig:
        client = await rig.edge.client()
        await client.send(post_form("/v1/files", form(part("file", b"x", filename=given))))
        file = (await client.reply()).json()

        assert file["filename"] == shown
        assert {path.name for path in (tmp_path / "files").iterdir()} == {file["id"]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(form(part("purpose", b"batch")), "no 'file'", id="no-file"),
        pytest.param(form(part("file", b"x")), "no 'file'", id="a-field"),
        pytest.param(form(*[part("file", b"x", filename="f")] * 2), "more than one", id="two"),
        pytest.param(
            form(part("purpose", b"a\nb"), part("file", b"x", filename="f")), "short word",
            id="odd-purpose",
        ),
        pytest.param(form(part("file", b"x", filename="f"))[:-9], "last boundary", id="cut-off"),
    ],
)  # fmt: skip
async def test_an_upload_that_is_none(tmp_path: Path, body: bytes, message: str) -> None:
    async with batches_before(directory=tmp_path) as rig:
        client = await rig.edge.client()
        await client.send(post_form("/v1/files", body, "X-Request-Id: mine"))
        reply = await client.reply()

        assert (reply.status, reply.headers["x-request-id"]) == (400, "mine")
        assert message in reply.json()["error"]["message"]
        assert list((tmp_path / "files").iterdir()) == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/v1/files", 405),
        ("POST", "/v1/files/file-1", 405),
        ("GET", "/v1/files/..%2f..%2fetc%2fpasswd/content", 404),
        ("GET", "/v1/files/file-1/content/more", 404),
        ("GET", "/v1/files?limit=0", 400),
        ("GET", "/v1/files?limit=x", 400),
        ("GET", "/v1/files?order=up", 400),
        ("POST", "/v1/files", 400),
    ],
)
async def test_what_is_none_of_it(tmp_path: Path, method: str, path: str, status: int) -> None:
    async with batches_before(directory=tmp_path) as rig:
        answered, body = await rig.call(method, path)

        assert answered == status
        assert body["error"]["message"]


async def test_a_client_sees_its_own_files_only(tmp_path: Path) -> None:
    async with batches_before(directory=tmp_path, keys=KEYS) as rig:
        shown = await rig.upload(b"secret", key="key-of-a")
        path = f"/v1/files/{shown['id']}"

        assert (await rig.call("GET", path, key="new-key-of-a"))[0] == 200
        for method, at in (("GET", path), ("GET", path + "/content"), ("DELETE", path)):
            assert (await rig.call(method, at, key="key-of-b"))[0] == 404
            assert (await rig.call(method, at))[0] == 401
        assert (await rig.call("GET", "/v1/files", key="key-of-b"))[1]["data"] == []
        batch = {"input_file_id": shown["id"], "endpoint": "/v1/completions"}
        assert (await rig.call("POST", "/v1/batches", batch, key="key-of-b"))[0] == 404


async def test_a_slow_reader_holds_little_of_a_file_in_memory(tmp_path: Path) -> None:
    content = os.urandom(190_000)
    async with batches_before(directory=tmp_path) as rig:
        shown = [await rig.upload(content) for _ in range(2)]
        client = await rig.edge.client()
        for file in shown:
            await client.send(get(f"/v1/files/{file['id']}/content"))
        await asyncio.sleep(0.2)
        (connection,) = rig.edge.server.connections
        waiting_bytes = connection.transport.get_write_buffer_size()

        assert waiting_bytes < 100_000
        assert [(await client.reply()).body for _ in shown] == [content] * 2


async def test_a_full_store_is_507(tmp_path: Path) -> None:
    async with batches_before(directory=tmp_path, limit_bytes=1000) as rig:
        await rig.upload(b"x" * 900)
        client = await rig.edge.client()
        await client.send(post_form("/v1/files", form(part("file", b"x" * 200, filename="f"))))
        reply = await client.reply()

        assert (reply.status, reply.json()["error"]["code"]) == (507, "storage_failed")
        assert len((await rig.call("GET", "/v1/files"))[1]["data"]) == 1
