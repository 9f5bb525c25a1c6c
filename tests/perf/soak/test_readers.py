"""Streams that are judged by what came of them, and when."""

import asyncio
import sys
from pathlib import Path

from perf.soak.processes import engines
from perf.soak.readers import Readers, Streams
from tests.perf.overhead.test_load import Answers, listening

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
TOKEN = b'26\r\ndata: {"content": "%019d"}\n\n\r\n' % 1
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def test_all_tokens_of_an_engine_come_and_are_timed(tmp_path: Path) -> None:
    looks: list[str] = []
    with engines(
        2, tmp_path, core=0, python=sys.executable, module="perf.soak.token_engine"
    ) as fleet:
        ports = [engine.port for engine in fleet]
        readers = Readers(ports, count=40, tokens=50)
        seen = readers.run(lambda: looks.append("all run"), lambda: looks.append("an end"))

    assert (seen.whole, seen.wrong) == (40, 0)
    assert looks == ["all run", "an end"]
    assert 0 < seen.tokens <= 40 * 51
    assert seen.delays_s
    assert seen.gaps_s
    assert all(0 < delay_s < 5 for delay_s in seen.delays_s)


async def test_a_stream_that_is_cut_or_short_is_not_whole() -> None:
    for answer in (HEAD + TOKEN, HEAD + TOKEN + DONE, HEAD + 3 * TOKEN + DONE):
        async with listening(lambda answer=answer: Answers(answer, leaves=True)) as port:
            seen = await _run(port)

        assert (seen.whole, seen.wrong) == (0, 1)


async def test_a_stream_with_all_its_tokens_is_whole() -> None:
    async with listening(lambda: Answers(HEAD + 2 * TOKEN + DONE, leaves=False)) as port:
        seen = await _run(port)

    assert (seen.whole, seen.wrong) == (1, 0)


async def _run(port: int) -> Streams:
    readers = Readers([port], count=1, tokens=2)
    return await asyncio.to_thread(readers.run, lambda: None, lambda: None)
