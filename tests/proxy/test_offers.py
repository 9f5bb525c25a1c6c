"""Offers of another protocol, as Java's client makes with every request: declined, at no loss."""

import json

import pytest

from lodestar_router.proxy.request_reader import Limits
from tests.fake_engine import FakeEngine
from tests.proxy.harness import completion, edge_before

BODY = json.dumps(completion()).encode()
OFFER = (
    b"Host: r\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
)
POST = b"POST /v1/completions HTTP/1.1\r\n" + OFFER
LENGTH = POST + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
GET = b"GET /health HTTP/1.1\r\n" + OFFER + b"\r\n"


@pytest.mark.parametrize("request_bytes", [LENGTH, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("piece_bytes", [1, 100, 10_000])
async def test_the_body_of_a_request_with_an_offer_is_read(
    request_bytes: bytes, piece_bytes: int
) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()
        for start in range(0, len(request_bytes), piece_bytes):
            await client.send(request_bytes[start : start + piece_bytes])

        assert (await client.reply()).status == 200
        path, headers, body = engine.requests[0][:3]
        assert (path, body) == ("/v1/completions", BODY)
        assert not {"upgrade", "http2-settings"} & {name.lower() for name in headers}
        await client.send(LENGTH)
        assert (await client.reply()).status == 200
    await engine.stop()


async def test_requests_with_offers_may_follow_each_other_in_one_piece() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(GET * 2000 + LENGTH + GET)

        replies = [await client.reply() for _ in range(2002)]
        assert {reply.status for reply in replies} == {200}
        assert len(engine.requests) == 1
    await engine.stop()


async def test_limits_hold_for_a_request_with_an_offer() -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine, limits=Limits(body_bytes=1000)) as edge:
        client = await edge.client()

        await client.send(POST + b"Content-Length: 1001\r\n\r\n")

        assert (await client.reply()).status == 413
        assert await client.closed()
    await engine.stop()


@pytest.mark.parametrize("offer", [b"", OFFER], ids=["alone", "with-an-offer"])
async def test_a_tunnel_is_refused(offer: bytes) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        client = await edge.client()

        await client.send(b"CONNECT e:80 HTTP/1.1\r\n" + offer + b"\r\n" + LENGTH)

        assert (await client.reply()).status in (404, 405)
        assert await client.closed()
        assert engine.requests == []
    await engine.stop()
