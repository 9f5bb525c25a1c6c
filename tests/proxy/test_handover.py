"""Bodies of both legs, in both protocols."""

import json
from typing import Any

import pytest

from lodestar_router.errors import EngineProtocolError
from lodestar_router.proxy.handover import (
    decode_body,
    is_one_sequence,
    prefill_body,
    transfer_params,
)

CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Grüße"}],
    "max_tokens": 50,
    "max_completion_tokens": 60,
    "min_tokens": 5,
    "n": 2,
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.25,
}


def asked(body: dict[str, Any], *, orchestrated: bool) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(
        prefill_body(json.dumps(body).encode(), orchestrated=orchestrated)
    )
    return decoded


def test_prefill_is_asked_for_one_token_whole() -> None:
    assert asked(CHAT, orchestrated=False) == {
        "model": "m",
        "messages": CHAT["messages"],
        "max_tokens": 1,
        "n": 1,
        "stream": False,
        "temperature": 0.25,
    }


def test_orchestrated_prefill_is_told_that_another_engine_decodes() -> None:
    body = asked(CHAT, orchestrated=True)

    assert body["kv_transfer_params"] == {
        "do_remote_decode": True,
        "do_remote_prefill": False,
        "remote_engine_id": None,
        "remote_block_ids": None,
        "remote_host": None,
        "remote_port": None,
    }
    assert (body["max_tokens"], body["max_completion_tokens"], body["stream"]) == (1, 1, False)
    assert "min_tokens" not in body


def test_a_limit_that_was_not_set_is_not_added() -> None:
    assert "max_completion_tokens" not in asked({"model": "m"}, orchestrated=True)


def test_the_prefill_engine_s_host_is_handed_over_with_its_parameters() -> None:
    params = {"remote_host": "localhost", "remote_port": 5600, "remote_block_ids": [[1, 2]]}
    answer = json.dumps({"choices": [], "kv_transfer_params": params}).encode()

    handed = transfer_params(answer, "10.0.0.7")
    body = json.loads(decode_body(json.dumps(CHAT).encode(), handed))

    assert body == {**CHAT, "kv_transfer_params": {**params, "remote_host": "10.0.0.7"}}


@pytest.mark.parametrize("answer", ['{"a": 1}', '{"kv_transfer_params": null}'])
def test_nothing_handed_over_is_none(answer: str) -> None:
    assert transfer_params(answer.encode(), "a") is None


@pytest.mark.parametrize("answer", ["", "[1]", "{", "\xff"])
def test_an_answer_that_cannot_be_read_is_an_error_of_the_engine(answer: str) -> None:
    with pytest.raises(EngineProtocolError):
        transfer_params(answer.encode("latin-1"), "a")


@pytest.mark.parametrize("name", ["kv_transfer_params", "kv_transfer_\\u0070arams"])
def test_a_client_cannot_say_where_engines_fetch_from(name: str) -> None:
    body = f'{{"model": "m", "{name}": {{"remote_host": "evil"}}}}'.encode()

    assert json.loads(decode_body(body, None)) == {"model": "m"}
    assert json.loads(decode_body(body, {"remote_host": "p"}))["kv_transfer_params"] == {
        "remote_host": "p"
    }


def test_a_body_without_them_stays_byte_for_byte() -> None:
    body = b'{ "model":  "m" }'

    assert decode_body(body, None) is body


@pytest.mark.parametrize(
    ("fields", "one"),
    [
        pytest.param({"messages": []}, True, id="chat"),
        pytest.param({"prompt": "a"}, True, id="text"),
        pytest.param({"prompt": ["a"]}, True, id="one-text"),
        pytest.param({"prompt": [1, 2, 3]}, True, id="tokens"),
        pytest.param({"prompt": [[1, 2, 3]]}, True, id="one-list-of-tokens"),
        pytest.param({"prompt": []}, True, id="empty-is-for-the-engine-to-refuse"),
        pytest.param({"prompt": "a", "n": 1}, True, id="one-answer"),
        pytest.param({"prompt": ["a", "b"]}, False, id="texts"),
        pytest.param({"prompt": [[1], [2]]}, False, id="lists-of-tokens"),
        pytest.param({"prompt": "a", "n": 2}, False, id="answers"),
    ],
)
def test_a_handover_is_for_one_sequence(fields: dict[str, Any], one: bool) -> None:
    assert is_one_sequence(json.dumps({"model": "m", **fields}).encode()) is one
