"""Both formats; lines written at once look like those that logging writes."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from lodestar_router import logs
from lodestar_router.config.stack_settings import LOG_FORMATS, LOG_LEVELS


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("a.b", logging.INFO, "/x/route_log.py", 7, message, (), None)
    made.__dict__.update(fields)
    return made


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("a.b")
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("log_format", LOG_FORMATS)
@pytest.mark.parametrize("at_s", [1_754_412_795.123_4, 0.0, 1_754_412_795.999_9])
def test_lines_written_at_once_are_those_of_the_handler(
    logger: logging.Logger, log_format: str, at_s: float
) -> None:
    out = io.StringIO()
    lines = logs.Lines(logger, log_format, place=("route_log.py", 7), stream=out)
    messages = ['went to "b" \\ é', "second"]

    lines.write([(at_s, message) for message in messages])

    formatter = logs.formatter(log_format)
    milliseconds = float(int(at_s * 1000 % 1000))
    expected = [record(m, created=at_s, msecs=milliseconds) for m in messages]
    assert out.getvalue() == "".join(f"{formatter.format(each)}\n" for each in expected)


def test_json_has_the_keys_of_the_other_router_and_the_exception() -> None:
    try:
        raise ValueError("no\ngood")
    except ValueError:
        failed = record("failed", exc_info=sys.exc_info())

    line = logs.formatter("json").format(failed)

    assert "\n" not in line
    fields = json.loads(line)
    assert set(fields) == {
        "timestamp", "level", "logger", "message", "filename", "lineno", "exception",
    }  # fmt: skip
    assert (fields["message"], fields["level"], fields["logger"]) == ("failed", "INFO", "a.b")
    assert (fields["filename"], fields["lineno"]) == ("route_log.py", 7)
    assert fields["exception"].endswith("ValueError: no\ngood")


def test_every_level_is_one() -> None:
    numbers = [logs.severity(level) for level in LOG_LEVELS]

    assert numbers == [50, 40, 30, 20, 10, 10]


def test_nobody_wants_lines_above_their_level(logger: logging.Logger) -> None:
    lines = logs.Lines(logger, "text", place=("x.py", 1), stream=io.StringIO())
    assert lines.wanted

    logger.setLevel(logging.WARNING)

    assert not lines.wanted


def test_log_that_cannot_be_written_loses_the_lines_and_nothing_else(
    logger: logging.Logger,
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    for stream in (Full(), closed := io.StringIO()):
        closed.close()
        logs.Lines(logger, "text", place=("x.py", 1), stream=stream).write([(0.0, "lost")])
