"""How a request ended is judged by what came, byte by byte."""

import asyncio
from typing import Any

import pytest

from perf.soak.clients import Clients
from perf.soak.processes import Look
from perf.soak.scenarios import left_over
from tests.perf.overhead.test_load import Answers, listening

JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b"9\r\ndata: a\n\n\r\n"
)
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
TOLD = b"19\r\nevent: error\ndata: {...}\n\n\r\n"
REFUSED = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"
WRONG = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        pytest.param(JSON, "answered", id="whole"),
        pytest.param(STREAM + DONE, "answered", id="stream"),
        pytest.param(STREAM + TOLD, "told", id="broken-and-said-so"),
        pytest.param(REFUSED, "refused 503", id="refused"),
        pytest.param(JSON[:-1], "lost", id="short"),
        pytest.param(STREAM, "lost", id="cut-without-a-word"),
        pytest.param(STREAM + b"0\r\n\r\n", "lost", id="ended-without-done"),
        pytest.param(STREAM + TOLD + DONE, "lost", id="broken-and-called-whole"),
        pytest.param(WRONG, "lost", id="no-rule"),
        pytest.param(b"", "lost", id="nothing"),
    ],
)
async def test_each_ending_has_its_name(answer: bytes, ending: str) -> None:
    async with listening(lambda: Answers(answer, leaves=True)) as port:
        clients = Clients(port)
        clients.send(b"GET / HTTP/1.1\r\n\r\n")
        await clients.ended()

    assert clients.tally.sent == 1
    assert dict(clients.tally.endings) == {ending: 1}


async def test_a_client_that_leaves_is_neither_answered_nor_lost() -> None:
    async with listening(lambda: Answers(STREAM, leaves=False)) as port:
        clients = Clients(port)
        clients.send(b"GET / HTTP/1.1\r\n\r\n", leaves_after_s=0.05)
        await clients.ended()

    assert dict(clients.tally.endings) == {"left": 1}


async def test_nobody_who_listens_is_a_loss() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()

    clients = Clients(port)
    clients.send(b"GET / HTTP/1.1\r\n\r\n")
    await clients.ended()

    assert clients.tally.lost == 1


def look(**changes: Any) -> Look:
    values = {"cpu_s": 1.0, "resident_mb": 100.0, "open_files": 20, "inflight": 0.0}
    return Look(**{**values, **changes})


@pytest.mark.parametrize(
    ("after", "words"),
    [
        pytest.param(look(resident_mb=104.0, open_files=21), "", id="well"),
        pytest.param(look(inflight=1.0), "under way", id="gauge"),
        pytest.param(look(open_files=40), "open files", id="files"),
        pytest.param(look(resident_mb=106.0), "memory", id="memory"),
    ],
)
def test_what_stays_behind_is_named(after: Look, words: str) -> None:
    wrong = left_over(look(), after)

    assert len(wrong) == bool(words)
    assert words in "".join(wrong)
