"""A request's messages and tools as the engine hands them to a chat template.

In       messages and tools as decoded JSON.
Out      new dicts, in the key order that templates print; None for what cannot
         be rendered without the engine (images, sound, embeddings).
Cost     about 1 us per message.
Errors   none: malformed input gives None, and the engine will refuse it.
Source   vllm/renderers/chat_utils.py, entrypoints/openai/chat_completion/
         protocol.py and entrypoints/generate/base/protocol.py at v0.32.0.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lodestar_router.tokens.content_format import ContentFormat

Message = dict[str, Any]

# Part types that carry text -> the key that holds it.
_TEXT_KEYS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}

# Keys the engine takes from a part itself; templates see only the others.
_OWN_PART_KEYS = frozenset({
    "audio_embeds", "audio_url", "closed", "data", "file", "image_embeds", "image_pil",
    "image_url", "input_audio", "name", "prompt_cache_breakpoint", "refusal", "text",
    "thinking", "type", "uuid", "video_embeds", "video_url",
})  # fmt: skip

_PLAIN_ROLES = frozenset({"system", "user", "assistant"})

# A header line that one client changes on every request; the engine drops it.
_BILLING_HEADER = "x-anthropic-billing-header"


def conversation(
    messages: Sequence[Any], content_format: ContentFormat, *, rename_reasoning: bool
) -> list[Message] | None:
    """The messages a template sees; None when one is malformed or not text.

    `rename_reasoning`: the endpoint takes `reasoning_content` for `reasoning`.
    """
    result = []
    strings = content_format == "string"
    for message in messages:
        parsed = _plain(message) if strings else None
        if parsed is None:
            parsed = _message(message, content_format, rename_reasoning)
        if parsed is None:
            return None
        result.append(parsed)
    return result


def _plain(raw: Any) -> Message | None:
    """What `_message` makes of a role and a text alone, by far the most common shape."""
    if type(raw) is not dict or len(raw) != 2:
        return None
    role, content = raw.get("role"), raw.get("content")
    if type(content) is not str or type(role) is not str or role not in _PLAIN_ROLES:
        return None
    if role == "system" and content.startswith(_BILLING_HEADER):
        return None
    return {"role": role, "content": content}


def _message(raw: Any, content_format: ContentFormat, rename_reasoning: bool) -> Message | None:
    if not isinstance(raw, dict) or not isinstance(role := raw.get("role"), str):
        return None
    content = _content(raw.get("content"), role, content_format)
    if content is None or (role == "developer" and raw.get("tools") is not None):
        return None
    message: Message = {"role": role, "content": content}
    if role == "assistant":
        if not _add_assistant_fields(message, raw, rename_reasoning):
            return None
    elif role == "tool" and "tool_call_id" in raw:
        message["tool_call_id"] = raw["tool_call_id"]
    for key in ("name", "task"):
        if isinstance(value := raw.get(key), str):
            message[key] = value
    if role == "developer":
        message["tools"] = None
    return message


def _content(raw: Any, role: str, content_format: ContentFormat) -> str | list[Message] | None:
    if isinstance(raw, str) and role != "system":
        if content_format == "string" or role == "tool":
            return raw
        return [{"type": "text", "text": raw}]
    parts: Any = [] if raw is None else [raw] if isinstance(raw, str) else raw
    if not isinstance(parts, list):
        return None
    if role == "system":
        parts = list(_without_billing_header(parts))
    parsed = [_part(part) for part in parts]
    known = [part for part in parsed if part is not None]
    if len(known) < len(parsed):
        return None
    only_text = all(part["type"] == "text" for part in known)
    if content_format == "string" or (role == "tool" and only_text):
        return "\n".join(part["text" if part["type"] == "text" else "name"] for part in known)
    return known


def _part(part: Any) -> Message | None:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict) or part.get("uuid") is not None:
        return None
    kind = part.get("type")
    if kind == "tool_reference" and isinstance(name := part.get("name"), str):
        return {"type": "tool_reference", "name": name}
    key = _TEXT_KEYS.get(kind) if isinstance(kind, str) else None
    if key is None or not isinstance(text := part.get(key), str):
        return None
    extra = {key: value for key, value in part.items() if key not in _OWN_PART_KEYS}
    return {"type": "text", "text": text, **extra}


def _without_billing_header(parts: list[Any]) -> Iterator[Any]:
    for part in parts:
        is_text = isinstance(part, dict) and part.get("type") == "text"
        text = part.get("text") if is_text else part
        if not (isinstance(text, str) and text.startswith(_BILLING_HEADER)):
            yield part
        elif rest := text.partition("\n")[2]:
            yield {**part, "text": rest} if is_text else rest


def _add_assistant_fields(message: Message, raw: Message, rename_reasoning: bool) -> bool:
    calls = raw.get("tool_calls")
    if calls is not None:
        parsed = [_tool_call(call) for call in calls] if isinstance(calls, list) else [None]
        if None in parsed:
            return False
        if parsed:
            message["tool_calls"] = parsed
    reasoning = raw.get("reasoning")
    if reasoning is None and rename_reasoning:
        reasoning = raw.get("reasoning_content")
    if reasoning is not None:
        message["reasoning"] = message["reasoning_content"] = reasoning
    return True


def _tool_call(call: Any) -> Message | None:
    """One tool call, its arguments decoded: templates expect an object, not JSON text."""
    if not isinstance(call, dict) or call.get("type") != "function":
        return None
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(text := function.get("arguments"), str):
        return None
    try:
        arguments = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        arguments = {}
    decoded = {"arguments": arguments if isinstance(arguments, dict) else {}}
    ordered = _ordered(function, ("arguments", "name")) | decoded
    return _ordered({**call, "function": ordered}, ("id", "function", "type"))


def tool_dicts(tools: Sequence[Any]) -> list[Message] | None:
    """Tools with the keys, order and defaults the engine gives them; None: malformed."""
    result = []
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type", "function") != "function":
            return None
        defer = tool.get("defer_loading")
        definition = {key: function.get(key) for key in ("name", "description", "parameters")}
        if function.get("strict") is not None:
            definition["strict"] = function["strict"]
        if (inner := function.get("defer_loading", defer)) is not None:
            definition["defer_loading"] = inner
        dumped: Message = {"type": "function", "function": definition}
        if defer is not None:
            dumped["defer_loading"] = defer
        result.append(dumped)
    return result


def developer_as_system(messages: list[Message]) -> list[Message]:
    """For templates that do not know the developer role: one system message, first."""
    if not any(message["role"] == "developer" for message in messages):
        return messages
    renamed = [_as_system(message) for message in messages]
    systems = [message for message in renamed if message["role"] == "system"]
    if len(systems) == 1 and renamed[0]["role"] == "system":
        return renamed
    texts = [text for message in systems if (text := _plain_text(message["content"]))]
    others = [message for message in renamed if message["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(texts)}, *others]


def _as_system(message: Message) -> Message:
    if message["role"] != "developer":
        return message
    return {key: value for key, value in message.items() if key != "tools"} | {"role": "system"}


def _plain_text(content: str | list[Message]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if "text" in part)


def _ordered(value: Mapping[str, Any], first: tuple[str, ...]) -> Message:
    known = {key: value[key] for key in first if key in value}
    return known | {key: item for key, item in value.items() if key not in known}
