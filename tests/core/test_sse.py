"""First tokens and usage are found however the bytes are cut."""

import pytest

from lodestar_router.core.sse import EventCounter, FirstTokenScanner, Usage, usage_in

CHAT = b'data: {"id":"1","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
COMPLETION = b'data: {"id":"1","choices": [ {"index":0,"text":"a"}]}\n\n'
MESSAGES = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0}\n\n'
RESPONSES = b'data: {"type": "response.output_text.delta","delta":"a"}\n\n'
NO_TOKEN = b': ping\n\ndata: {"id":"1","choices":[],"usage":{"prompt_tokens":1}}\n\n'


@pytest.mark.parametrize("stream", [CHAT, COMPLETION, MESSAGES, RESPONSES])
def test_first_token_is_seen_in_every_api_and_cut_anywhere(stream: bytes) -> None:
    for cut in range(len(stream)):
        scanner = FirstTokenScanner()

        seen = scanner.feed(NO_TOKEN + stream[:cut]) or scanner.feed(stream[cut:])

        assert seen, cut


def test_keep_alives_and_usage_are_no_token() -> None:
    scanner = FirstTokenScanner()

    assert not any(scanner.feed(NO_TOKEN) for _ in range(100))


def test_a_stream_of_unknown_kind_counts_from_its_first_64_kib() -> None:
    scanner = FirstTokenScanner()

    seen = [scanner.feed(b"x" * 8192) for _ in range(9)]

    assert seen == [False] * 8 + [True]


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        pytest.param(
            b'data: {"choices":[],"usage":{"prompt_tokens":640,"completion_tokens":16,'
            b'"prompt_tokens_details":{"cached_tokens":512}}}\n\ndata: [DONE]\n\n',
            Usage(prompt_tokens=640, completion_tokens=16, cached_tokens=512),
            id="stream",
        ),
        pytest.param(
            b'"usage": {"prompt_tokens": 4, "total_tokens": 5}}',
            Usage(prompt_tokens=4, completion_tokens=None, cached_tokens=None),
            id="no-details",
        ),
        pytest.param(b'"usage":null}', None, id="null"),
        pytest.param(b"data: [DONE]\n\n", None, id="none"),
        pytest.param(
            rb'{"text":"\"usage\":{\"prompt_tokens\":9}","usage":{"prompt_tokens":3}}',
            Usage(prompt_tokens=3, completion_tokens=None, cached_tokens=None),
            id="text-cannot-forge-it",
        ),
    ],
)
def test_usage_is_the_last_one_in_the_answer(tail: bytes, expected: Usage | None) -> None:
    assert usage_in(tail) == expected


def _event(text: str) -> bytes:
    return b'data: {"choices": [{"index": 0, "text": "%s"}]}\n\n' % text.encode()


@pytest.mark.parametrize(
    ("reads", "events"),
    [
        pytest.param([[_event("a")]] * 9, 9, id="one-each"),
        pytest.param([[_event("a")] * 5, [_event("b")]], 6, id="several-that-came-together"),
        pytest.param([[_event("a") * 4], [_event("b")]], 5, id="several-in-one-part"),
        pytest.param([[_event("ab")[:9]], [_event("ab")[9:]]] * 3, 3, id="cut-in-two"),
        pytest.param([[], [_event("a")]], 1, id="framing-alone"),
        pytest.param([[_event("a" * 500)], [_event("b")]], 2, id="of-very-different-lengths"),
    ],
)
def test_events_are_counted_however_they_come(reads: list[list[bytes]], events: int) -> None:
    counter = EventCounter()
    counter.look(_event("first"))

    for parts in reads:
        counter.add(parts, sum(map(len, parts)) + 6 * len(parts))

    assert counter.count == 1 + events
