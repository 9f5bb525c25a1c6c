"""Where in a chunk the stream was cut is read from the parser, not guessed."""

import httptools
import pytest

from lodestar_router.errors import EngineError
from lodestar_router.proxy.answer_reader import AnswerReader
from lodestar_router.proxy.last_words import error_event, last_words

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream\r\ntransfer-encoding: chunked\r\n\r\n"
ERROR = EngineError("it broke")
SIZES = (3, 300, 2, 5000)
STREAM = b"".join(b"%x\r\n%b\r\n" % (n, b"x" * n) for n in SIZES)


class Body:
    """A client's parser of the same answer."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = False

    def on_body(self, data: bytes) -> None:
        self.data += data

    def on_message_complete(self) -> None:
        self.ended = True


def read(relayed: bytes) -> AnswerReader:
    reader = AnswerReader()
    reader.feed(HEAD + relayed)
    return reader


def speaking() -> set[int]:
    """Offsets between chunks, and those within their data."""
    offsets, at = {0}, 0
    for size in SIZES:
        data = at + len(b"%x\r\n" % size)
        offsets |= {*range(data, data + size), data + size + 2}
        at = data + size + 2
    return offsets


def test_wherever_a_stream_is_cut_the_client_reads_the_event_or_no_end() -> None:
    for cut in range(len(STREAM) + 1):
        relayed = HEAD + STREAM[:cut]
        words = last_words(ERROR, read(STREAM[:cut]), unframed=False, relayed=relayed)

        client = Body()
        httptools.HttpResponseParser(client).feed_data(relayed + words)

        assert not client.ended
        assert client.data.endswith(b"\n\n" + error_event(ERROR)) is (cut in speaking())


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9\r\n\r\n",
        HEAD.replace(b"transfer", b"content-encoding: br\r\ntransfer"),
    ],
)
def test_nothing_is_said_where_it_would_not_be_understood(head: bytes) -> None:
    reader = AnswerReader()
    reader.feed(head)

    assert last_words(ERROR, reader, unframed=False, relayed=head) == b""


def test_parser_that_failed_is_told_by_what_was_relayed() -> None:
    reader = read(b"3\r\nxxx\r\n")
    with pytest.raises(httptools.HttpParserError):
        reader.feed(b"zz\r\n")

    words = last_words(ERROR, reader, unframed=False, relayed=b"3\r\nxxx\r\n")

    assert words.endswith(error_event(ERROR) + b"\r\n")
