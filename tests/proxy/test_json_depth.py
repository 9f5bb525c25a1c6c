"""Depth of nesting, held against a parser's view of it."""

import json
import time
from random import Random
from typing import Any

import pytest

from lodestar_router.errors import RequestError
from lodestar_router.proxy.json_depth import check_depth, depth_of


def parsed_depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(parsed_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(parsed_depth, value), default=0)
    return 0


def some_json(rng: Random, room: int) -> Any:
    kind = rng.randrange(4) if room else 3
    if kind == 0:
        return [some_json(rng, room - 1) for _ in range(rng.randrange(4))]
    if kind == 1:
        return {text(rng): some_json(rng, room - 1) for _ in range(rng.randrange(4))}
    return text(rng) if kind == 2 else rng.choice([1, None, True, 0.5])


def text(rng: Random) -> str:
    return "".join(rng.choice('[]{}"\\n,:é x') for _ in range(rng.randrange(8)))


def test_it_is_that_of_the_parsed_value() -> None:
    rng = Random(3)
    for _ in range(500):
        value = some_json(rng, 7)
        body = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode()

        assert depth_of(body) == parsed_depth(value), body


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        pytest.param(b"[" * 20 + b"]" * 20, False, id="as-deep-as-may-be"),
        pytest.param(b"[" * 21 + b"]" * 21, True, id="one-too-deep"),
        pytest.param(b'{"a":' * 21 + b"1" + b"}" * 21, True, id="objects"),
        pytest.param(b"[" + b"[]," * 1000 + b"[]]", False, id="many-but-flat"),
        pytest.param(b'"' + b"[" * 1000 + b'"', False, id="in-a-string"),
        pytest.param(b'"\\"' + b"[" * 1000 + b'"', False, id="after-an-escaped-quote"),
        pytest.param(b'["\\\\",' + b"[" * 1000, True, id="after-an-escaped-backslash"),
        pytest.param(b"[" * 1000, True, id="never-closed"),
    ],
)
def test_what_nests_deeper_is_refused(body: bytes, refused: bool) -> None:
    if refused:
        with pytest.raises(RequestError, match="deeper than 20 levels"):
            check_depth(body, 20)
    else:
        check_depth(body, 20)


def test_the_worst_body_costs_no_more_than_parsing_one() -> None:
    began_s = time.process_time()
    with pytest.raises(RequestError):
        check_depth(b"[" * 8_000_000, 200)

    assert time.process_time() - began_s < 2.0
