"""Which lines a batch takes, and what is said of the others."""

import io

import pytest

from lodestar_router.batches.lines import MOST_LINES, check, numbered, read_lines
from tests.batches.rig import ENDPOINT, jsonl, line

MOST_BYTES = 1000


def checked(content: bytes) -> tuple[int, list[tuple[str, int | None]]]:
    total, errors = check(io.BytesIO(content), ENDPOINT, MOST_BYTES)
    return total, [(error.code, error.line) for error in errors]


def test_good_lines_with_empty_ones_between_and_no_end_of_the_last() -> None:
    content = b"\n" + line("a") + b"\r\n\n   \n" + line("b", prompt="\u00e4")

    assert checked(content) == (2, [])
    read = list(read_lines(io.BytesIO(content), {2}, MOST_BYTES))
    assert [(one.number, one.custom_id) for one in read] == [(5, "b")]
    assert read[0].body == b'{"model": "tiny", "prompt": "\\u00e4"}'


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        pytest.param(b"{", "invalid_json_line", id="no-json"),
        pytest.param(b"\xff", "invalid_json_line", id="no-utf8"),
        pytest.param(b"[" * 900, "invalid_request", id="deep"),
        pytest.param(b"[]", "invalid_request", id="no-object"),
        pytest.param(b'{"custom_id": "b"}', "invalid_request", id="fields-missing"),
        pytest.param(line("b").replace(b'"b"', b"7"), "invalid_request", id="number-for-id"),
        pytest.param(line(""), "invalid_custom_id", id="empty-id"),
        pytest.param(line("a"), "duplicate_custom_id", id="id-twice"),
        pytest.param(line("b", method="GET"), "invalid_method", id="get"),
        pytest.param(line("b", url="/v1/embeddings"), "mismatched_url", id="other-url"),
        pytest.param(line("b", model=None), "invalid_body", id="null-model"),
        pytest.param(line("b", model=""), "invalid_body", id="empty-model"),
        pytest.param(line("b", stream=True), "invalid_body", id="stream"),
        pytest.param(line("b", prompt="x" * 2000), "line_too_long", id="too-long"),
    ],
)
def test_a_bad_line_is_named_and_the_next_ones_are_checked_too(bad: bytes, code: str) -> None:
    total, errors = checked(jsonl([line("a"), bad, line("c"), line("c")]))

    assert total == 4
    assert errors == [(code, 2), ("duplicate_custom_id", 4)]


def test_no_line_at_all_and_too_many_lines() -> None:
    assert checked(b"\n \n") == (0, [("empty_file", None)])
    assert checked(b"{}\n" * 500)[1][-1] == ("invalid_request", 100)
    assert checked(b"x\n" * 10**5)[0] == 100
    many = jsonl(line(str(number)) for number in range(MOST_LINES + 1))
    assert checked(many) == (MOST_LINES + 1, [("too_many_tasks", None)])


def test_a_long_line_is_never_held_whole() -> None:
    content = b"x" * 5000 + b"\n" + b"y\n"

    lines = list(numbered(io.BytesIO(content), 100))

    assert [(number, len(raw)) for number, raw in lines] == [(1, 101), (2, 2)]
