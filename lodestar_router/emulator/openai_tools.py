"""Tool calls: which one a chat must make, and how the emulated model's words become one.

The model calls a tool where it has to (`tool_choice` "required" or a function's name) and
answers in words where it may ("auto"). The arguments are JSON, its words in it.

Source   vllm/entrypoints/openai/chat_completion/serving.py at v0.32.0, with a tool parser.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

_json = msgspec.json.Encoder().encode
_BEFORE, _AFTER = '{"words": "', '"}'


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The call that a chat must make."""

    name: str
    required: bool  # by "required", not by name: then the finish reason says so

    def ending(self, reason: str | None) -> str | None:
        """The finish reason, where the words ended by `reason`."""
        return "tool_calls" if reason == "stop" and self.required else reason

    def message(self, call_id: str, text: str) -> dict[str, Any]:
        """What a whole answer has in place of its text."""
        function = {"name": self.name, "arguments": _BEFORE + text + _AFTER}
        return {
            "content": "",
            "tool_calls": [{"id": call_id, "type": "function", "function": function}],
        }

    def delta(self, call_id: str, text: str, *, first: bool, last: bool) -> bytes:
        """The `tool_calls` of a chunk."""
        arguments = (_BEFORE if first else "") + text + (_AFTER if last else "")
        call: dict[str, Any] = {"index": 0, "function": {"arguments": arguments}}
        if first:
            call = {"id": call_id, "type": "function", **call}
            call["function"]["name"] = self.name
        return _json([call])


def wanted_call(body: Mapping[str, Any]) -> ToolCall | str | None:
    """The call that a body asks for, None for none, or (text) what is wrong with it."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools is None:
        return (
            None if choice in (None, "none") else "When using `tool_choice`, `tools` must be set."
        )
    names = [_name(tool) for tool in tools] if isinstance(tools, list) else [None]
    if None in names:
        return "tools must be a list of functions with names"
    if choice == "required":
        return ToolCall(str(names[0]), required=True) if names else "`tools` must not be empty"
    if choice in (None, "auto", "none"):
        return None
    name = _name(choice)
    if name not in names:
        return "The tool specified in `tool_choice` does not match any of the specified `tools`"
    return ToolCall(str(name), required=False)


def _name(tool: object) -> str | None:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) and name else None
