"""A request's head is the same whether it is read or remembered, and never another body's."""

import json

import pytest

from lodestar_router.errors import RequestError
from lodestar_router.proxy.head_reader import HeadReader
from lodestar_router.proxy.messages import Request


def post(body: bytes, path: str = "/v1/chat/completions") -> Request:
    return Request(
        method=b"POST", target=path.encode(), path=path, headers=(), fields={}, body=body,
        http_1_0=False, keep_alive=True, received_at_s=0.0,
    )  # fmt: skip


def chat(model: str, **more: object) -> bytes:
    return json.dumps(
        {"model": model, "messages": [{"role": "user", "content": "x" * 3000}], **more}
    ).encode()


def test_a_body_that_keeps_coming_has_the_same_head() -> None:
    reader = HeadReader(json_depth=10)
    body = chat("m", stream=True, max_tokens=7, n=2)

    heads = [reader.of(post(body))[0] for _ in range(4)]

    assert heads == [heads[0]] * 4
    assert (heads[0].model, heads[0].stream, heads[0].output_limit_tokens) == ("m", True, 7)
    assert heads[3] is heads[2]  # not read again


def test_a_body_that_differs_at_its_end_has_its_own_head() -> None:
    reader = HeadReader(json_depth=10)
    for _ in range(3):
        reader.of(post(chat("m", max_tokens=7)))

    head, form = reader.of(post(chat("m", max_tokens=8)))

    assert (head.output_limit_tokens, form) == (8, None)


def test_what_is_refused_is_refused_every_time() -> None:
    reader = HeadReader(json_depth=3)
    for _ in range(4):
        with pytest.raises(RequestError, match="deeper than 3"):
            reader.of(post(b'{"model": "m", "x": [[[[]]]]}'))
