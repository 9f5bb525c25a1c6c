"""The input of a batch, line by line.

    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": ...}}

In       a file of such lines; empty lines count for nothing.
Out      Line each, with the body byte for byte; or what is wrong, line by line.
Cost     one line in memory at a time; 10 us a line. The ids of all are held while checking.
Errors   none: what is wrong is a LineError.
Source   https://platform.openai.com/docs/guides/batch: limits and rules.
"""

from collections.abc import Collection, Iterator
from typing import BinaryIO

import msgspec

from lodestar_router.batches.records import LineError

MOST_LINES = 50_000
_MOST_ERRORS = 100  # that are told
_MOST_ID_CHARS = 512


class Line(msgspec.Struct, frozen=True):
    """One request."""

    number: int  # in the file, from 1
    custom_id: str
    body: bytes


class _Written(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Body(msgspec.Struct):
    model: str
    stream: bool | None = None


_line = msgspec.json.Decoder(_Written).decode
_body = msgspec.json.Decoder(_Body).decode


class _WrongLineError(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def numbered(file: BinaryIO, most_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not empty; of one that is too long only so much that this shows."""
    number = 0
    while raw := file.readline(most_bytes + 1):
        number += 1
        whole = raw
        while len(raw) > most_bytes and not raw.endswith(b"\n"):
            raw = file.readline(most_bytes + 1)
        if whole.strip():
            yield number, whole


def read_lines(file: BinaryIO, answered: Collection[int], most_bytes: int) -> Iterator[Line]:
    """The lines of a checked file that have no answer yet."""
    for number, raw in numbered(file, most_bytes):
        if number not in answered:
            written = _line(raw)
            yield Line(number, written.custom_id, bytes(written.body))


def check(file: BinaryIO, endpoint: str, most_bytes: int) -> tuple[int, tuple[LineError, ...]]:
    """(how many lines there are, what is wrong with them)."""
    errors: list[LineError] = []
    seen: set[str] = set()
    total = 0
    for number, raw in numbered(file, most_bytes):
        total += 1
        if total > MOST_LINES:
            return total, (LineError("too_many_tasks", f"there are more than {MOST_LINES} lines"),)
        try:
            _check_line(raw, endpoint, seen, most_bytes)
        except _WrongLineError as error:
            errors.append(LineError(error.code, str(error), number, error.param))
            if len(errors) == _MOST_ERRORS:
                break
    if not total:
        errors.append(LineError("empty_file", "there is no line in the input file"))
    return total, tuple(errors)


def _check_line(raw: bytes, endpoint: str, seen: set[str], most_bytes: int) -> None:
    if len(raw) > most_bytes:
        raise _WrongLineError("line_too_long", f"the line is longer than {most_bytes} bytes")
    try:
        line = _line(raw)
    except msgspec.ValidationError as error:
        raise _WrongLineError("invalid_request", f"no batch request: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _WrongLineError("invalid_json_line", "the line is no valid JSON") from error
    if not 0 < len(line.custom_id) <= _MOST_ID_CHARS:
        why = f"custom_id must have 1 to {_MOST_ID_CHARS} characters"
        raise _WrongLineError("invalid_custom_id", why, "custom_id")
    if line.custom_id in seen:
        why = "the custom_id is that of an earlier line"
        raise _WrongLineError("duplicate_custom_id", why, "custom_id")
    seen.add(line.custom_id)
    if line.method != "POST":
        raise _WrongLineError("invalid_method", "method must be POST", "method")
    if line.url != endpoint:
        raise _WrongLineError("mismatched_url", f"url must be the batch's {endpoint}", "url")
    _check_body(line.body)


def _check_body(raw: bytes | msgspec.Raw) -> None:
    """As far as the router itself looks; the rest is the engine's to refuse."""
    try:
        body = _body(raw)
    except msgspec.ValidationError as error:
        raise _WrongLineError("invalid_body", f"body: {error}", "body") from error
    if not body.model:
        raise _WrongLineError("invalid_body", "body: model is empty", "body")
    if body.stream:
        raise _WrongLineError("invalid_body", "body: a line of a batch cannot stream", "body")
