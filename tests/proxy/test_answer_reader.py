"""Which bytes are an answer, and where it ends."""

import httptools
import pytest

from lodestar_router.proxy.answer_reader import AnswerReader

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


def test_one_parser_reads_answer_after_answer() -> None:
    reader = AnswerReader()

    for status in (200, 404):
        reader.begin()
        reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE.replace(b"200", b"%d" % status))

        assert (reader.status, reader.bodies, reader.complete) == (status, [b"hi"], True)
        assert (reader.informational, reader.keep_alive, reader.overrun) == (1, True, False)


def test_second_answer_to_one_request_is_noticed() -> None:
    reader = AnswerReader()

    reader.feed(WHOLE + WHOLE)

    assert reader.overrun


@pytest.mark.parametrize(
    "answer",
    [
        b"220 smtp ready\r\n",
        b"HTTP/1.1 200 OK\nconte",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
        WHOLE + b"trailing",
    ],
)
def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    with pytest.raises(httptools.HttpParserError):
        AnswerReader().feed(answer)


def test_body_without_length_ends_with_its_connection() -> None:
    reader = AnswerReader()

    reader.feed(b"HTTP/1.1 200 OK\r\n\r\npart")

    assert (reader.until_close, reader.complete, reader.bodies) == (True, False, [b"part"])
