"""Requests that two parsers may read differently: refused, or sent on in one plain form.

The engine behind counts what reaches it. Nothing that was hidden in another
request ever does, and an ambiguous request ends its connection.
"""

import asyncio

import pytest

from lodestar_router.proxy.request_reader import Limits
from lodestar_router.tasks import spawn
from tests.fake_engine import FakeEngine
from tests.proxy.harness import completion, edge_before, get, post

BODY = b'{"model":"tiny","prompt":"hello"}'
N = len(BODY)
POST = b"POST /v1/completions HTTP/1.1\r\nHost: r\r\n"
HIDDEN = POST + b"X-Hidden: 1\r\nContent-Length: %d\r\n\r\n%b" % (N, BODY)
LENGTH = b"Content-Length: %d\r\n" % N
CHUNKED = b"Transfer-Encoding: chunked\r\n"
ONE_CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (N, BODY)

REFUSED = {
    # lengths
    "two-lengths": POST + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY,
    "two-equal-lengths": POST + LENGTH + LENGTH + b"\r\n" + BODY,
    "lengths-in-a-list": POST + b"Content-Length: %d, %d\r\n\r\n" % (N, N) + BODY,
    "length-with-plus": POST + b"Content-Length: +%d\r\n\r\n" % N + BODY,
    "length-negative": POST + b"Content-Length: -1\r\n\r\n" + BODY,
    "length-hex": POST + b"Content-Length: 0x%x\r\n\r\n" % N + BODY,
    "length-with-inner-space": POST + b"Content-Length: 3 3\r\n\r\n" + BODY,
    "length-with-underscore": POST + b"Content-Length: 3_3\r\n\r\n" + BODY,
    "length-fraction": POST + b"Content-Length: %d.0\r\n\r\n" % N + BODY,
    "length-empty": POST + b"Content-Length:\r\n\r\n" + BODY,
    "length-past-64-bits": POST + b"Content-Length: 18446744073709551649\r\n\r\n" + BODY,
    # length and transfer-encoding
    "length-then-chunked": POST + LENGTH + CHUNKED + b"\r\n" + ONE_CHUNK,
    "chunked-then-length": POST + CHUNKED + LENGTH + b"\r\n" + ONE_CHUNK,
    "length-0-and-chunked": POST + b"Content-Length: 0\r\n" + CHUNKED + b"\r\n" + ONE_CHUNK,
    "chunked-not-last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + ONE_CHUNK,
    "unknown-coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + ONE_CHUNK,
    "identity": POST + b"Transfer-Encoding: identity\r\n" + LENGTH + b"\r\n" + BODY,
    "chunked-with-vertical-tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + ONE_CHUNK,
    "chunked-quoted": POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + ONE_CHUNK,
    "chunked-split-by-a-header": POST + CHUNKED + b"Transfer-Encoding: x\r\n\r\n" + ONE_CHUNK,
    # names, folds, line ends
    "space-before-colon": POST + b"Content-Length : %d\r\n\r\n" % N + BODY,
    "tab-before-colon": POST + b"Transfer-Encoding\t: chunked\r\n" + LENGTH + b"\r\n" + BODY,
    "space-before-name": POST + b" Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + BODY,
    "space-before-first-name": b"POST /v1/completions HTTP/1.1\r\n X: y\r\n" + LENGTH + b"\r\n",
    "no-name": POST + b": x\r\n" + LENGTH + b"\r\n" + BODY,
    "no-colon": POST + b"Transfer-Encoding chunked\r\n" + LENGTH + b"\r\n" + BODY,
    "nul-in-name": POST + b"X\x00: y\r\n" + LENGTH + b"\r\n" + BODY,
    "nul-in-value": POST + b"X: y\x00z\r\n" + LENGTH + b"\r\n" + BODY,
    "control-byte-in-value": POST + b"X: y\x01z\r\n" + LENGTH + b"\r\n" + BODY,
    "cr-in-value": POST + b"X: y\rTransfer-Encoding: chunked\r\n" + LENGTH + b"\r\n" + BODY,
    "lf-only": POST.replace(b"\r\n", b"\n") + b"Content-Length: %d\n\n" % N + BODY,
    "lf-after-a-header": POST + b"X: y\n" + LENGTH + b"\r\n" + BODY,
    "lf-ends-the-head": POST + LENGTH + b"\n" + BODY,
    "high-byte-in-name": POST + b"X\xff: y\r\n" + LENGTH + b"\r\n" + BODY,
    # chunks
    "chunk-size-past-64-bits": POST + CHUNKED + b"\r\n10000000000000021\r\n" + BODY,
    "chunk-size-negative": POST + CHUNKED + b"\r\n-21\r\n" + BODY,
    "chunk-size-0x": POST + CHUNKED + b"\r\n0x21\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk-size-empty": POST + CHUNKED + b"\r\n\r\n" + BODY,
    "chunk-size-after-space": POST + CHUNKED + b"\r\n " + ONE_CHUNK,
    "chunk-size-lf": POST + CHUNKED + b"\r\n%x\n%b\r\n0\r\n\r\n" % (N, BODY),
    "chunk-longer-than-its-size": POST + CHUNKED + b"\r\n%x\r\n%bXX\r\n0\r\n\r\n" % (N, BODY),
    "chunk-ends-in-lf": POST + CHUNKED + b"\r\n%x\r\n%b\n0\r\n\r\n" % (N, BODY),
    "chunk-extension-with-lf": POST + CHUNKED + b"\r\n%x;a\n%b\r\n0\r\n\r\n" % (N, BODY),
    # request line
    "http-0.9": b"GET /health\r\n\r\n",
    "http-2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http-1.2": POST.replace(b"1.1", b"1.2") + LENGTH + b"\r\n" + BODY,
    "unknown-method": b"FROB / HTTP/1.1\r\nHost: r\r\n\r\n",
    "lower-case-method": POST.replace(b"POST", b"post") + LENGTH + b"\r\n" + BODY,
    "space-in-target": POST.replace(b"completions", b"comp letions") + LENGTH + b"\r\n" + BODY,
    "nul-in-target": POST.replace(b"completions", b"comp\x00") + LENGTH + b"\r\n" + BODY,
    "tab-before-version": b"GET /health\tHTTP/1.1\r\n\r\n",
    "chunked-in-http-1.0": POST.replace(b"1.1", b"1.0") + LENGTH + CHUNKED + b"\r\n" + ONE_CHUNK,
}  # fmt: skip


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
async def test_what_can_be_read_in_two_ways_is_refused_and_ends_the_connection(
    raw: bytes,
) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(raw + HIDDEN)
        reply = await client.reply()

        assert reply.status == 400
        assert reply.json()["error"]["code"] == "invalid_request"
        assert await client.closed()
        assert engine.requests == []
    await engine.stop()


PASSED = {
    "length": POST + LENGTH + b"\r\n" + BODY,
    "length-with-zeros": POST + b"Content-Length: 000%d\r\n\r\n" % N + BODY,
    "length-in-spaces": POST + b"Content-Length: \t %d \t\r\n\r\n" % N + BODY,
    "chunked": POST + CHUNKED + b"\r\n" + ONE_CHUNK,
    "chunked-in-any-case": POST + b"tRANSFER-eNCODING: cHUNKED\r\n\r\n" + ONE_CHUNK,
    "chunks-of-a-byte": POST + CHUNKED + b"\r\n"
    + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    "chunk-extension": POST + CHUNKED + b"\r\n%x;a=b\r\n%b\r\n0;z\r\n\r\n" % (N, BODY),
    "trailers": POST + CHUNKED + b"\r\n%x\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n"
    % (N, BODY),
    "empty-line-before": b"\r\n" + POST + LENGTH + b"\r\n" + BODY,
    "connection-names-framing": POST + LENGTH + b"Connection: content-length, host\r\n\r\n" + BODY,
}  # fmt: skip


@pytest.mark.parametrize("raw", PASSED.values(), ids=PASSED)
@pytest.mark.parametrize("pieces", ["at-once", "byte-by-byte"])
async def test_what_is_taken_reaches_the_engine_in_one_plain_form(raw: bytes, pieces: str) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        for piece in [raw] if pieces == "at-once" else [bytes([byte]) for byte in raw]:
            await client.send(piece)
        first = await client.reply()
        await client.send(get("/health"))  # the connection is in step

        assert first.status == 200
        assert (await client.reply()).status == 200
        ((_, headers, body),) = engine.requests
        sent = {name.lower(): value for name, value in headers.items()}
        assert body == BODY
        assert sent["content-length"] == str(N)
        assert not sent.keys() & {"transfer-encoding", "x-trailer", "trailer", "connection"}
    await engine.stop()


async def test_a_folded_header_is_refused() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        await client.send(
            POST + b"X-Folded: a\r\n Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n"
        )
        await client.send(BODY)
        reply = await client.reply()

        assert reply.status == 400
        assert await client.closed()
        assert engine.requests == []
    await engine.stop()


LIMITS = Limits(body_bytes=4096, head_bytes=2048, header_count=16, target_bytes=512)


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        pytest.param(
            b"GET /health?" + b"a" * 600 + b" HTTP/1.1\r\n\r\n", 414, "url_too_long", id="url"
        ),
        pytest.param(b"GET /" + b"a" * 600, 414, "url_too_long", id="url-without-end"),
        pytest.param(POST + b"X: y\r\n" * 17 + b"\r\n", 431, "headers_too_large", id="headers"),
        pytest.param(
            POST + b"X: " + b"y" * 3000 + b"\r\n\r\n", 431, "headers_too_large", id="header"
        ),
        pytest.param(
            POST + b"Content-Length: 4097\r\n\r\n", 413, "request_too_large", id="length"
        ),
        pytest.param(
            POST + b"Expect: 100-continue\r\nContent-Length: 4097\r\n\r\n",
            413, "request_too_large", id="length-not-invited",
        ),
        pytest.param(
            POST + CHUNKED + b"\r\n1001\r\n" + b"x" * 4097, 413, "request_too_large", id="chunk"
        ),
        pytest.param(
            POST + CHUNKED + b"\r\n1\r\nx\r\n0\r\n" + b"X: y\r\n" * 400 + b"\r\n",
            431, "headers_too_large", id="trailers",
        ),
        pytest.param(
            POST + b"Expect: a-miracle\r\n" + LENGTH + b"\r\n", 417, "expectation_failed",
            id="expectation",
        ),
    ],
)  # fmt: skip
async def test_what_passes_a_limit_is_refused_by_its_name(
    raw: bytes, status: int, code: str
) -> None:
    async with edge_before(limits=LIMITS) as edge:
        client = await edge.client()
        await client.send(raw)
        reply = await client.reply()

        assert (reply.status, reply.json()["error"]["code"]) == (status, code)
        assert reply.json()["error"]["type"] == "invalid_request_error"
        assert await client.closed()


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(POST + b"X: ", id="value"),
        pytest.param(POST + b"X", id="name"),
        pytest.param(POST + CHUNKED + b"\r\n1;", id="chunk-extension"),
        pytest.param(POST + CHUNKED + b"\r\n1\r\nx\r\n0\r\nX: ", id="trailer"),
    ],
)
async def test_a_line_without_end_is_not_read_for_ever(begin: bytes) -> None:
    async with edge_before(limits=LIMITS) as edge:
        client = await edge.client()
        await client.send(begin)
        sent_bytes = 0
        while sent_bytes < 10_000_000 and not client.reader.at_eof():
            try:
                await client.send(b"y" * 1000)
            except ConnectionError:
                break
            sent_bytes += 1000

        assert sent_bytes < 10_000_000


async def test_a_head_that_comes_byte_by_byte_is_not_waited_for_for_ever() -> None:
    async with edge_before(limits=Limits(head_s=0.2)) as edge:
        client = await edge.client()
        await client.send(POST + b"X: ")
        reading = spawn(client.reply(), name="reply")
        while not reading.done():
            client.writer.write(b"y")
            await asyncio.sleep(0.02)

        assert reading.result().status == 408
        assert reading.result().json()["error"]["code"] == "request_head_timeout"
        assert await client.closed()


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "gzip, identity"])
async def test_compressed_bodies_are_415(encoding: str) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        reply = await edge.ask(f"Content-Encoding: {encoding}")

        assert reply.status == 415
        assert reply.json()["error"]["code"] == "unsupported_content_encoding"
        assert engine.requests == []
    await engine.stop()


async def test_a_body_that_nests_too_deep_is_400_wherever_it_does() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        deep = b'{"model":"tiny","prompt":"x","extra":' + b"[" * 300 + b"]" * 300 + b"}"
        await client.send(post("/v1/completions", deep))
        refused = await client.reply()
        await client.send(post("/v1/completions", completion(extra="[" * 300)))
        taken = await client.reply()

        assert (refused.status, taken.status) == (400, 200)
        assert "deeper than 200 levels" in refused.json()["error"]["message"]
        assert len(engine.requests) == 1
    await engine.stop()
