"""What emulated engines answer beside completions."""

import base64
from typing import Any

import numpy as np
import pytest

from lodestar_router.emulator.openai_tools import ToolCall, wanted_call
from tests.emulator.server_rig import MODEL, call, complete, serving

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


async def test_embeddings_are_the_same_as_numbers_and_as_base64() -> None:
    async with serving() as server:
        body = {"model": MODEL, "input": ["a b c", "d"]}
        plain = (await call(server.url, "/v1/embeddings", body)).json()
        packed = (
            await call(server.url, "/v1/embeddings", {**body, "encoding_format": "base64"})
        ).json()

        for one, other in zip(plain["data"], packed["data"], strict=True):
            unpacked = np.frombuffer(base64.b64decode(other["embedding"]), dtype="<f4")
            assert unpacked == pytest.approx(one["embedding"], abs=1e-6)
        assert plain["usage"]["prompt_tokens"] == plain["usage"]["total_tokens"] > 0
        wrong = await call(server.url, "/v1/embeddings", {"model": MODEL, "input": None})
        assert wrong.status == 400


async def test_a_sleeping_engine_generates_nothing_and_has_forgotten_its_cache() -> None:
    async with serving() as server:
        prompt = "a b c d e f g h i j k l m n o p " * 4
        await complete(server, prompt)
        assert (await call(server.url, "/is_sleeping")).json() == {"is_sleeping": False}

        assert (await call(server.url, "/sleep?level=1", b"")).status == 200

        assert (await call(server.url, "/is_sleeping")).json() == {"is_sleeping": True}
        refused = await call(server.url, "/v1/completions", {"model": MODEL, "prompt": prompt})
        assert refused.status == 503
        await call(server.url, "/wake_up", b"")
        answer = await complete(server, prompt)
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"tools": [TOOL]}, None, id="may"),
        pytest.param({"tools": [TOOL], "tool_choice": "none"}, None, id="may-not"),
        pytest.param(
            {"tools": [TOOL], "tool_choice": "required"}, ToolCall("f", required=True), id="must"
        ),
        pytest.param(
            {"tools": [TOOL], "tool_choice": TOOL}, ToolCall("f", required=False), id="this-one"
        ),
        pytest.param({"tool_choice": "required"}, "`tools` must be set", id="no-tools"),
        pytest.param({"tools": [], "tool_choice": "required"}, "not be empty", id="empty"),
        pytest.param({"tools": ["f"]}, "functions with names", id="no-function"),
        pytest.param(
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "does not match",
            id="another",
        ),
    ],
)
def test_which_tool_is_called(body: dict[str, Any], wanted: ToolCall | str | None) -> None:
    call_wanted = wanted_call(body)

    if isinstance(wanted, str):
        assert isinstance(call_wanted, str)
        assert wanted in call_wanted
    else:
        assert call_wanted == wanted
