"""How an answer ends that its engine broke after the client had part of it.

A stream of server-sent events gets one more event, an OpenAI error object, so
that the client's library raises it. The stream's framing is left open and the
connection is closed: even a reader that knows no error events sees that the
stream did not end by itself. Any other answer is only cut, short of its
announced length or of its last chunk.

    event: error
    data: {"type": "error", "error": {"message": ..., "type": "server_error", ...}}
"""

from lodestar_router.errors import EngineError
from lodestar_router.proxy.answer_reader import AnswerReader
from lodestar_router.proxy.messages import error_body


def error_event(error: EngineError) -> bytes:
    """The event; `type` at the top is where Anthropic's clients look."""
    body = error_body(error.status_hint, str(error), error.code)
    return b'event: error\ndata: {"type":"error",' + body[1:] + b"\n\n"


def last_words(
    error: EngineError, reader: AnswerReader, *, unframed: bool, relayed: bytes
) -> bytes:
    """What to send the client before its connection is closed; empty for nothing but that.

    Args:
        unframed: the client gets the body without chunked framing.
        relayed: the last bytes it was sent.
    """
    if not reader.is_event_stream:
        return b""
    # An event that was cut in half is ended where it was cut.
    event = b"\n\n" + error_event(error)
    if unframed or reader.until_close:
        return event
    if not reader.chunked:
        return b""  # it has an announced length, with no room for more
    if relayed.endswith(b"\r"):
        return b""  # within a line end: not worth a word
    rest_bytes = reader.rest_of_chunk()
    if rest_bytes >= len(event):
        return event
    if rest_bytes:
        return b"\n" * rest_bytes + b"\r\n" + _chunk(event)
    return _chunk(event) if relayed.endswith(b"\r\n") else b""


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"
