"""Messages and tools take the shape in which vLLM hands them to templates."""

from typing import Any

import pytest

from lodestar_router.tokens.content_format import ContentFormat
from lodestar_router.tokens.messages import conversation, developer_as_system, tool_dicts

PARTS = [
    {"type": "text", "text": "a", "cache_control": 1, "closed": True},
    {"type": "refusal", "refusal": "b"},
]
CALL = {"type": "function", "x": 1, "id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}
CALLED = {"id": "c", "function": {"arguments": {"a": 1}, "name": "f"}, "type": "function", "x": 1}


def seen(
    message: Any, content_format: ContentFormat = "string", *, rename: bool = True
) -> dict[str, Any] | None:
    result = conversation([message], content_format, rename_reasoning=rename)
    return None if result is None else result[0]


@pytest.mark.parametrize(
    ("message", "string", "openai"),
    [
        pytest.param(
            {"role": "user", "content": "x", "extra": 1},
            {"role": "user", "content": "x"},
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
            id="text",
        ),
        pytest.param(
            {"role": "user", "content": PARTS, "name": "n"},
            {"role": "user", "content": "a\nb", "name": "n"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "cache_control": 1},
                    {"type": "text", "text": "b"},
                ],
                "name": "n",
            },
            id="parts",
        ),
        pytest.param(
            {"role": "tool", "content": PARTS, "tool_call_id": "c"},
            {"role": "tool", "content": "a\nb", "tool_call_id": "c"},
            {"role": "tool", "content": "a\nb", "tool_call_id": "c"},
            id="tool-results-are-always-text",
        ),
        pytest.param(
            {"role": "tool", "content": [{"type": "tool_reference", "name": "f"}]},
            {"role": "tool", "content": "f"},
            {"role": "tool", "content": [{"type": "tool_reference", "name": "f"}]},
            id="tool-reference",
        ),
        pytest.param(
            {"role": "assistant", "content": None},
            {"role": "assistant", "content": ""},
            {"role": "assistant", "content": []},
            id="no-content",
        ),
        pytest.param(
            {"role": "system", "content": "x-anthropic-billing-header: 1\nrest"},
            {"role": "system", "content": "rest"},
            {"role": "system", "content": [{"type": "text", "text": "rest"}]},
            id="billing-header",
        ),
        pytest.param(
            {"role": "developer", "content": "d", "task": "t"},
            {"role": "developer", "content": "d", "task": "t", "tools": None},
            {
                "role": "developer",
                "content": [{"type": "text", "text": "d"}],
                "task": "t",
                "tools": None,
            },
            id="developer",
        ),
    ],
)
def test_content(message: Any, string: dict[str, Any], openai: dict[str, Any]) -> None:
    assert seen(message) == string
    assert seen(message, "openai") == openai


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("text", id="not-an-object"),
        pytest.param({"content": "x"}, id="no-role"),
        pytest.param({"role": "user", "content": 5}, id="number"),
        pytest.param({"role": "user", "content": [5]}, id="number-part"),
        pytest.param({"role": "user", "content": [{"type": "text"}]}, id="part-without-text"),
        pytest.param(
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]},
            id="image",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "text", "text": "a", "uuid": "1"}]}, id="uuid"
        ),
        pytest.param({"role": "assistant", "tool_calls": "x"}, id="calls-not-a-list"),
        pytest.param({"role": "assistant", "tool_calls": [{"type": "custom"}]}, id="custom-call"),
        pytest.param(
            {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f"}}]},
            id="call-without-arguments",
        ),
        pytest.param({"role": "developer", "content": "x", "tools": [{}]}, id="developer-tools"),
    ],
)
def test_what_only_the_engine_can_judge_is_none(message: Any) -> None:
    assert seen(message) is None
    assert seen(message, "openai") is None


def test_tool_calls_are_decoded_and_ordered_as_templates_print_them() -> None:
    message = seen({"role": "assistant", "content": "", "tool_calls": [CALL]})

    assert message is not None
    assert repr(message["tool_calls"]) == repr([CALLED])


@pytest.mark.parametrize("text", ["", "[1]", "nope", "null", "[" * 10_000])
def test_arguments_that_are_no_object_become_an_empty_one(text: str) -> None:
    call = {**CALL, "function": {"name": "f", "arguments": text}}

    message = seen({"role": "assistant", "content": "", "tool_calls": [call]})

    assert message is not None
    assert message["tool_calls"][0]["function"]["arguments"] == {}


def test_the_request_is_left_untouched() -> None:
    request = {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": "r"}
    before = repr(request)

    seen(request)

    assert repr(request) == before


def test_empty_tool_calls_disappear() -> None:
    assert seen({"role": "assistant", "content": "x", "tool_calls": []}) == {
        "role": "assistant",
        "content": "x",
    }


@pytest.mark.parametrize(
    ("given", "rename", "kept"),
    [
        ({"reasoning": "r"}, False, "r"),
        ({"reasoning_content": "r"}, True, "r"),
        ({"reasoning_content": "r"}, False, None),
        ({"reasoning": "new", "reasoning_content": "old"}, True, "new"),
    ],
)
def test_reasoning_is_given_under_both_names(
    given: dict[str, str], rename: bool, kept: str | None
) -> None:
    message = seen({"role": "assistant", "content": "x", **given}, rename=rename)

    assert message is not None
    assert message.get("reasoning") == message.get("reasoning_content") == kept


def test_tools_get_the_defaults_and_lose_unknown_keys() -> None:
    tools = tool_dicts([{"function": {"strict": True, "name": "f", "x": 1}, "y": 2}])

    function = {"name": "f", "description": None, "parameters": None, "strict": True}
    assert repr(tools) == repr([{"type": "function", "function": function}])


def test_deferred_tools_say_so_twice() -> None:
    tools = tool_dicts([{"type": "function", "function": {"name": "f"}, "defer_loading": True}])

    assert tools is not None
    assert tools[0]["defer_loading"] is tools[0]["function"]["defer_loading"] is True


@pytest.mark.parametrize("tool", ["f", {}, {"type": "custom", "function": {"name": "f"}}])
def test_malformed_tools_are_none(tool: Any) -> None:
    assert tool_dicts([tool]) is None


def test_developer_messages_become_one_system_message_at_the_front() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "developer", "content": [{"type": "text", "text": "d"}], "tools": None},
    ]

    assert developer_as_system(messages) == [
        {"role": "system", "content": "s\n\nd"},
        {"role": "user", "content": "u"},
    ]


def test_a_single_developer_message_at_the_front_keeps_its_content() -> None:
    parts = [{"type": "text", "text": "d"}]

    assert developer_as_system([{"role": "developer", "content": parts, "tools": None}]) == [
        {"role": "system", "content": parts}
    ]


def test_system_messages_stay_where_they_are_without_a_developer() -> None:
    messages = [{"role": "user", "content": "u"}, {"role": "system", "content": "s"}]

    assert developer_as_system(messages) is messages
