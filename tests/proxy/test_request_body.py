"""Both ways to read a body see the same head and refuse the same bodies."""

import pytest

from lodestar_router.errors import RequestError
from lodestar_router.proxy.request_body import read_head, read_whole


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        pytest.param(b"{", "not valid JSON", id="not-json"),
        pytest.param(b'{"model": "a"} x', "not valid JSON", id="more-than-json"),
        pytest.param(b'{"model": "\xff"}', "not valid JSON", id="not-utf8"),
        pytest.param(b'{"model": "m", "x": ' + b"[" * 100_000, "not valid JSON", id="too-deep"),
        pytest.param(b"[]", "must be a JSON object", id="no-object"),
        pytest.param(b"null", "must be a JSON object", id="null"),
        pytest.param(b'{"messages": []}', "no 'model'", id="no-model"),
        pytest.param(b'{"model": null}', "no 'model'", id="null-model"),
        pytest.param(b'{"model": 7}', "'model' must be a string", id="number-model"),
    ],
)
def test_bodies_that_cannot_be_routed_are_refused_alike(body: bytes, complaint: str) -> None:
    for read in (read_head, read_whole):
        with pytest.raises(RequestError, match=complaint):
            read(body)


def test_the_whole_body_has_the_same_head() -> None:
    body = (
        b'{"model": "m", "stream": true, "max_tokens": 7, "n": 2, "messages": [{"a": 1}], "x": 0}'
    )

    head, whole = read_whole(body)

    assert head == read_head(body)
    assert (head.model, head.stream, head.output_limit_tokens, head.num_answers) == (
        "m",
        True,
        7,
        2,
    )
    assert whole["messages"] == [{"a": 1}]
