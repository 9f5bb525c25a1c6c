"""Answers beside recordings of vLLM 0.32: the same statuses, fields, order and nulls."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.server_rig import MODEL, Answer, call, serving, settings

_RECORDING = json.loads(
    (Path(__file__).parent.parent / "data" / "vllm032_answers.json").read_text(encoding="utf-8")
)["answers"]
_GOOD = [entry for entry in _RECORDING if entry["status"] == 200]
_REFUSED = [entry for entry in _RECORDING if entry["status"] != 200]

# Text of a random model against text of ours; and ids, lengths and times.
_FREE = {
    "id", "content", "text", "created", "system_fingerprint", "tokens", "count", "prompt",
    "max_model_len", "token_ids", "prompt_token_ids", "token_strs", "model",
    "created_cache_tokens", "prompt_tokens", "total_tokens",
}  # fmt: skip


def shape(value: Any, name: str = "") -> Any:
    """The value with what may differ reduced to its type; the order of keys is kept."""
    if isinstance(value, dict):
        return [(key, shape(item, key)) for key, item in value.items()]
    if name in _FREE and value is not None:
        return type(value).__name__
    return [shape(item) for item in value] if isinstance(value, list) else value


def shapes(answer: Answer) -> list[Any]:
    """Of each object of the answer; choices of a stream may interleave as they will."""
    objects = answer.chunks() if answer.body.startswith(b"data:") else [answer.json()]
    return sorted(map(shape, objects), key=repr)


def ours(body: dict[str, Any]) -> dict[str, Any]:
    return body | {"model": MODEL} if body.get("model") == "tiny" else body


def case(entry: dict[str, Any]) -> str:
    body = {key: value for key, value in entry["body"].items() if key not in ("model", "messages")}
    return f"{entry['path'].rpartition('/')[2]}-{json.dumps(body)[:70]}"


@pytest.mark.parametrize("entry", _GOOD, ids=case)
async def test_an_answer_has_the_fields_of_vllms(entry: dict[str, Any]) -> None:
    async with serving() as server:
        answer = await call(server.url, entry["path"], ours(entry["body"]))

    assert answer.status == 200
    assert shapes(answer) == shapes(Answer(200, entry["answer"].encode()))


async def test_refusals_are_worded_as_vllms() -> None:
    async with serving(settings(kv_blocks=2000, max_model_len=16_384)) as server:
        for entry in _REFUSED:
            answer = await call(server.url, entry["path"], ours(entry["body"]))

            expected = json.loads(entry["answer"].replace("aliases: tiny", f"aliases: {MODEL}"))
            got = answer.json()
            if expected["error"]["message"].startswith("1 validation error"):
                # Its text is the validation library's own, with the input in it.
                expected["error"]["message"] = got["error"]["message"]
            assert (answer.status, got) == (entry["status"], expected)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("/nope", None, 404, id="unknown-path"),
        pytest.param("/v1/models", {}, 405, id="wrong-method"),
        pytest.param("/v1/completions", b'{"model":', 400, id="not-json"),
        pytest.param("/v1/completions", b"[1]", 400, id="no-object"),
        pytest.param("/v1/completions", {"prompt": "a", "echo": True}, 400, id="echo"),
        pytest.param("/v1/completions", {"prompt": [[1], []]}, 400, id="empty-ids"),
        pytest.param("/v1/chat/completions", {"messages": [{"role": 1}]}, 400, id="no-role"),
        pytest.param("/detokenize", {"tokens": ["a"]}, 400, id="no-ids"),
    ],
)
async def test_nonsense_is_refused(path: str, body: Any, status: int) -> None:
    async with serving() as server:
        assert (await call(server.url, path, body)).status == status


async def test_a_prompt_that_leaves_no_room_is_refused_with_its_length() -> None:
    async with serving(settings(max_model_len=64)) as server:
        body = {"model": MODEL, "prompt": [5] * 64, "max_tokens": 1}

        answer = await call(server.url, "/v1/completions", body)

        assert answer.status == 400
        assert answer.json()["error"]["param"] == "input_tokens"
        assert "maximum context length is 64 tokens" in answer.json()["error"]["message"]


async def test_a_request_larger_than_the_kv_pool_is_refused() -> None:
    async with serving(settings(kv_blocks=8, max_model_len=1000)) as server:
        answer = await call(server.url, "/v1/completions", {"prompt": [5] * 200, "max_tokens": 9})

        assert answer.status == 400
        assert "KV blocks" in answer.json()["error"]["message"]
