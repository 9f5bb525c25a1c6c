"""A log that nobody reads costs lines, never the router."""

import asyncio
import fcntl
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lodestar_router.log_outlet import Outlet
from tests.fake_engine import FakeEngine
from tests.proxy.harness import RawClient, completion, get, post


def lost(lines: int) -> str:
    return f"lost {lines}"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def read_all(end: int) -> str:
    os.set_blocking(end, False)
    data = b""
    while True:
        try:
            data += os.read(end, 65_536)
        except BlockingIOError:
            return data.decode()


def test_lines_come_in_order_and_whole(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1], lost)

    outlet.write("one\n")
    outlet.write("two\nthree é\n")

    assert read_all(pipe[0]) == "one\ntwo\nthree é\n"


def test_what_finds_no_room_waits_for_its_reader(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1], lost)
    lines = [f"{number:06d} {'x' * 100}\n" for number in range(3000)]  # five pipes full

    began_s = time.monotonic()
    for line in lines:
        outlet.write(line)
    assert time.monotonic() - began_s < 5.0

    text = ""
    for _ in range(10):
        text += read_all(pipe[0])
        outlet.drain()
    assert text == "".join(lines)


def test_what_passes_the_limit_is_lost_and_counted(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1], lost, limit_bytes=10_000)
    for number in range(3000):
        outlet.write(f"{number:06d} {'x' * 100}\n")

    text = ""
    for _ in range(10):
        text += read_all(pipe[0])
        outlet.drain()
    outlet.write("after\n")
    text += read_all(pipe[0])

    *whole, said, last = text.splitlines()
    assert all(re.fullmatch(r"\d{6} x{100}", line) for line in whole)
    assert said == f"lost {3000 - len(whole)}"
    assert last == "after"


def test_line_longer_than_a_piece_is_written_in_full(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1], lost)

    outlet.write("x" * 10_000 + "\nshort\n")

    assert read_all(pipe[0]) == "x" * 10_000 + "\nshort\n"


def test_end_waits_for_a_reader_but_not_for_ever(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1], lost)
    outlet.write("x\n" * 100_000)

    began_s = time.monotonic()
    outlet.finish(0.2)

    assert 0.1 < time.monotonic() - began_s < 5.0


def test_file_takes_everything_at_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        outlet = Outlet(file.fileno(), lost, limit_bytes=400_000)

        outlet.write("line\n" * 50_000)

    assert (tmp_path / "log").read_text() == "line\n" * 50_000


@pytest.mark.parametrize("path", ["/dev/full", "closed"])
def test_what_cannot_be_written_is_lost(path: str, pipe: tuple[int, int]) -> None:
    if path == "closed":
        reader, writer = os.pipe()
        os.close(reader)
    elif Path(path).exists():
        writer = os.open(path, os.O_WRONLY)
    else:
        pytest.skip("no /dev/full here")
    outlet = Outlet(writer, lost)

    outlet.write("gone\n")
    outlet.finish(0.1)

    os.close(writer)


def command(engine: FakeEngine, port: int) -> list[str]:
    return [
        sys.executable, "-m", "lodestar_router", "--engines", engine.url, "--no-trainer",
        "--host", "127.0.0.1", "--port", str(port), "--routing-logic", "roundrobin",
    ]  # fmt: skip


async def test_router_without_a_log_answers() -> None:
    engine = await FakeEngine().start()
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", 'exec "$@" 2>&-', "sh", *command(engine, port)
    )
    try:
        await (await _client(port)).close()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await engine.stop()


async def test_router_whose_log_nobody_reads_goes_on_answering() -> None:
    engine = await FakeEngine().start()
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    port = _free_port()
    process = await asyncio.create_subprocess_exec(*command(engine, port), stderr=writer)
    os.close(writer)
    try:
        client = await _client(port)
        statuses = set()
        for number in range(200):  # 30 kB of lines
            await client.send(post("/v1/completions", completion(), f"X-Request-Id: r{number}"))
            statuses.add((await asyncio.wait_for(client.reply(), 10)).status)
        await client.send(get("/health"))
        assert (await client.reply()).status == 200
        await client.close()

        assert statuses == {200}
        text = ""
        async with asyncio.timeout(10):
            while "Routing request r199 " not in text:
                await asyncio.sleep(0.05)
                text += read_all(reader)
        ids = re.findall(r"Routing request (r\d+) ", text)
        assert ids == [f"r{number}" for number in range(200)]
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(reader)
        await engine.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _client(port: int) -> RawClient:
    async with asyncio.timeout(60):
        while True:
            try:
                client = await RawClient.to(port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.1)
                continue
            await client.send(post("/v1/completions", completion()))
            if (await client.reply()).status == 200:
                return client
            await client.close()
            await asyncio.sleep(0.1)
