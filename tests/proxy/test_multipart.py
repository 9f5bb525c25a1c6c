"""Which forms are read, where their parts lie, and which are refused."""

import io
import os

import aiohttp
import httpx2
import pytest

from lodestar_router.errors import RequestError
from lodestar_router.proxy.form_head import read_form_head
from lodestar_router.proxy.multipart import is_form, read_form
from tests.proxy.forms import BOUNDARY, form, part

TYPE = f"multipart/form-data; boundary={BOUNDARY}".encode()


def test_parts_lie_where_their_contents_are() -> None:
    noise = os.urandom(5000) + b"\r\n--" + b"\r\n\r\n--almost"
    body = form(part("model", b"whisper"), part("file", noise, filename="a b.wav"), part("x", b""))

    parts = read_form(TYPE, body)

    assert [(p.name, p.filename) for p in parts] == [
        ("model", None), ("file", "a b.wav"), ("x", None),
    ]  # fmt: skip
    assert [body[p.start : p.stop] for p in parts] == [b"whisper", noise, b""]


@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param(b'multipart/form-data; boundary="%s"' % BOUNDARY.encode(), id="quoted"),
        pytest.param(b"Multipart/Form-Data;boundary=%s" % BOUNDARY.encode(), id="any-case"),
        pytest.param(
            b"multipart/form-data; charset=utf-8; boundary=%s" % BOUNDARY.encode(), id="more"
        ),
    ],
)
def test_the_boundary_may_be_written_in_several_ways(content_type: bytes) -> None:
    assert is_form(content_type)
    assert len(read_form(content_type, form(part("model", b"m")))) == 1


def test_escaped_quotes_and_utf8_in_names() -> None:
    body = form(part('a\\"b', b"1"), part("ä", b"2", filename='x\\\\y"'[:-1]))

    assert [(p.name, p.filename) for p in read_form(TYPE, body)] == [
        ('a"b', None), ("ä", "x\\y"),
    ]  # fmt: skip


async def test_forms_of_common_clients_are_read() -> None:
    data = os.urandom(3000)
    built = httpx2.Request(
        "POST", "http://x", data={"model": "m", "stream": "true"}, files={"file": ("f.wav", data)}
    )
    theirs = read_form(built.headers["content-type"].encode(), built.read())
    made = aiohttp.FormData()
    made.add_field("file", io.BytesIO(data), filename="ö.wav", content_type="audio/wav")
    made.add_field("model", "m")
    writer = made()
    sent = bytearray()
    await writer.write(_Into(sent))
    own = read_form(writer.headers["Content-Type"].encode(), bytes(sent))

    assert {p.name for p in theirs} == {"model", "stream", "file"}
    assert [p.name for p in own] == ["file", "model"]
    assert bytes(sent)[own[0].start : own[0].stop] == data


class _Into(aiohttp.abc.AbstractStreamWriter):
    """Collects what is written."""

    def __init__(self, into: bytearray) -> None:
        self._into = into

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self._into += chunk

    async def write_eof(self, chunk: bytes = b"") -> None:
        self._into += chunk

    async def drain(self) -> None:
        return

    def enable_compression(self, *_: object) -> None:
        return

    def enable_chunking(self) -> None:
        return

    async def write_headers(self, *_: object) -> None:
        return


GOOD = form(part("model", b"m"))
B = BOUNDARY.encode()


@pytest.mark.parametrize(
    ("content_type", "body", "why"),
    [
        pytest.param(b"multipart/form-data", GOOD, "no valid boundary", id="no-boundary"),
        pytest.param(TYPE + b"; boundary=y", GOOD, "two values", id="two-boundaries"),
        pytest.param(TYPE + b'; x="', GOOD, "parameter is malformed", id="open-quote"),
        pytest.param(
            b"multipart/form-data; boundary=" + b"x" * 71, GOOD, "no valid", id="too-long"
        ),
        pytest.param(TYPE, b"", "does not begin", id="empty"),
        pytest.param(TYPE, b"preamble\r\n" + GOOD, "does not begin", id="preamble"),
        pytest.param(TYPE, GOOD + b"more", "follows its last", id="epilogue"),
        pytest.param(TYPE, GOOD[:-10], "last boundary is missing", id="cut-off"),
        pytest.param(TYPE, GOOD.replace(b"\r\n", b"\n"), "not the end of its line", id="bare-lf"),
        pytest.param(
            TYPE, GOOD.replace(B + b"--", B + b"x--"), "not the end of its line", id="goes-on"
        ),
        pytest.param(
            TYPE, b"--%s\r\n\r\n\r\nx\r\n--%s--" % (B, B), "malformed", id="no-part-head"
        ),
        pytest.param(
            TYPE, b"--%s\r\nX: y\r\n\r\nx\r\n--%s--" % (B, B), "no form-data", id="no-disposition"
        ),
        pytest.param(
            TYPE,
            b"--%s\r\nContent-Disposition: form-data\r\n\r\nx\r\n--%s--" % (B, B),
            "no name",
            id="no-name",
        ),
        pytest.param(
            TYPE,
            b'--%s\r\nContent-Disposition: form-data; name="a"\r\n\r\n--%s--' % (B, B),
            "no content",
            id="no-content",
        ),
        pytest.param(
            TYPE, GOOD.replace(b"name=", b'name="x"; name='), "two values", id="two-names"
        ),
        pytest.param(
            TYPE, GOOD.replace(b'"model"', b'"\xff"'), "not UTF-8", id="name-not-utf8"
        ),
        pytest.param(
            TYPE, GOOD.replace(b"Content-", b"X: " + b"y" * 9000 + b"\r\nContent-"),
            "no end of its head", id="long-head",
        ),
        pytest.param(
            TYPE, form(*[part("a", b"")] * 1001), "more than 1000", id="too-many-parts"
        ),
    ],
)  # fmt: skip
def test_what_is_ambiguous_or_cut_off_is_refused(
    content_type: bytes, body: bytes, why: str
) -> None:
    with pytest.raises(RequestError, match=why):
        read_form(content_type, body)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        pytest.param([part("file", b"x", filename="f")], "no 'model'", id="none"),
        pytest.param([part("model", b"")], "no 'model'", id="empty"),
        pytest.param([part("model", b"a"), part("model", b"b")], "one field", id="two"),
        pytest.param([part("model", b"a", filename="f")], "one field", id="a-file"),
        pytest.param([part("model", b"\xff")], "not UTF-8", id="not-utf8"),
    ],
)
def test_a_form_names_one_model(parts: list[bytes], why: str) -> None:
    with pytest.raises(RequestError, match=why):
        read_form_head(TYPE, form(*parts))


def test_another_model_leaves_all_else_as_it_was() -> None:
    body = form(part("file", b"\x00model\r\n", filename="f"), part("model", b"alias"))

    renamed = read_form_head(TYPE, body).renamed(body, "whisper-large")

    assert renamed == body.replace(b"\r\n\r\nalias\r\n", b"\r\n\r\nwhisper-large\r\n")


@pytest.mark.parametrize(("value", "stream"), [(b"true", True), (b"1", True), (b"false", False)])
def test_a_form_may_ask_for_a_stream(value: bytes, stream: bool) -> None:
    body = form(part("model", b"m"), part("stream", value))

    assert read_form_head(TYPE, body).head.stream is stream
