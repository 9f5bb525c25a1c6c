"""TLS on both sides of a router, with a CA of the test's own."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lodestar_router.assembly import Router
from lodestar_router.config import parse
from lodestar_router.errors import ConfigError
from lodestar_router.tls import client_tls, engine_tls
from tests.certificates import Certificates, make_certificates
from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, completion, post


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("strange"))


@asynccontextmanager
async def routing(url: str, *flags: object) -> AsyncIterator[tuple[Router, int]]:
    argv = ["--engines", url, "--host", "127.0.0.1", "--port", "0", "--no-trainer"]
    router = Router(parse([*argv, "--routing-logic", "roundrobin", *map(str, flags)], {}))
    try:
        yield router, await router.start()
    finally:
        await router.stop(drain_s=0.5)


def client_context(trusts: Certificates, shows: Certificates | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=trusts.ca)
    if shows is not None:
        context.load_cert_chain(shows.own)
    return context


async def ask(port: int, context: ssl.SSLContext) -> int:
    client = RawClient(*await asyncio.open_connection("127.0.0.1", port, ssl=context))
    try:
        await client.send(post("/v1/completions", completion(stream=True)))
        reply = await client.reply()
        assert reply.body.endswith(b"data: [DONE]\n\n")
        return reply.status
    finally:
        await client.close()


async def test_clients_are_served_over_tls_and_not_without(ours: Certificates) -> None:
    engine = await FakeEngine().start()
    async with routing(engine.url, "--tls-cert", ours.cert, "--tls-key", ours.key) as (_, port):
        assert await ask(port, client_context(ours)) == 200

        plain = await RawClient.to(port)
        await plain.send(post("/v1/completions", completion()))
        assert not (await plain.reader.read()).startswith(b"HTTP/")
        await plain.close()
    await engine.stop()


async def test_clients_without_a_certificate_of_the_ca_are_turned_away(
    ours: Certificates, strange: Certificates
) -> None:
    engine = await FakeEngine().start()
    flags = ("--tls-cert", ours.own, "--tls-client-ca", ours.ca)
    async with routing(engine.url, *flags) as (_, port):
        assert await ask(port, client_context(ours, shows=ours)) == 200

        for shown in (None, strange):
            with pytest.raises((ssl.SSLError, OSError, asyncio.IncompleteReadError)):
                await ask(port, client_context(ours, shows=shown))
        assert len(engine.requests) == 1
    await engine.stop()


@asynccontextmanager
async def tls_before(engine: FakeEngine, cert: Certificates) -> AsyncIterator[str]:
    """The engine's URL with TLS before it, which asks for a certificate of its own CA."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cert.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(cert.own)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", engine.port)
        try:
            await asyncio.gather(
                copy(reader, inner[1]), copy(inner[0], writer), return_exceptions=True
            )
        finally:
            inner[1].close()
            writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await asyncio.sleep(0.05)


async def test_engines_are_asked_over_tls_with_a_certificate(ours: Certificates) -> None:
    engine = await FakeEngine().start()
    flags = ("--engine-ca", ours.ca, "--engine-cert", ours.own, "--tls-cert", ours.own)
    async with tls_before(engine, ours) as url, routing(url, *flags) as (router, port):
        assert await ask(port, client_context(ours)) == 200
        assert [state.up for state in router.fleet] == [True]
    await engine.stop()


async def test_an_engine_that_is_not_trusted_gets_nothing(
    ours: Certificates, strange: Certificates
) -> None:
    engine = await FakeEngine().start()
    flags = ("--engine-ca", strange.ca, "--engine-cert", ours.own)
    async with tls_before(engine, ours) as url, routing(url, *flags) as (router, _):
        assert [state.up for state in router.fleet] == [False]
        assert engine.requests == []
    await engine.stop()


async def test_a_renewed_certificate_is_shown_after_a_reload(
    ours: Certificates, strange: Certificates, tmp_path: Path
) -> None:
    engine = await FakeEngine().start()
    renewed = tmp_path / "own.pem"
    renewed.write_text(ours.own.read_text())
    async with routing(engine.url, "--tls-cert", renewed) as (router, port):
        assert await ask(port, client_context(ours)) == 200

        renewed.write_text("half a certificate")
        refused = await router.reload()
        assert await ask(port, client_context(ours)) == 200
        renewed.write_text(strange.own.read_text())
        taken = await router.reload()

        assert (refused, taken) == (False, True)
        assert await ask(port, client_context(strange)) == 200
    await engine.stop()


def test_wrong_files_are_named_on_one_line(
    ours: Certificates, strange: Certificates, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no PEM")
    engines = ["--engines", "http://a"]

    for flags in (
        ["--tls-cert", str(wrong)],
        ["--tls-cert", str(tmp_path / "missing.pem")],
        ["--tls-cert", str(ours.cert), "--tls-key", str(strange.key)],
        ["--tls-cert", str(ours.own), "--tls-client-ca", str(wrong)],
    ):
        with pytest.raises(ConfigError, match=r"^TLS (certificate|CA) \S+: [^\n]+$"):
            client_tls(parse([*engines, *flags], {}))
    with pytest.raises(ConfigError, match=r"^TLS CA \S+: "):
        engine_tls(parse([*engines, "--engine-ca", str(wrong)], {}))
