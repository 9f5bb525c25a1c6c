"""Reads the prompt out of a request body, whatever the endpoint calls it.

In       endpoint path; the body as decoded JSON.
Out      ChatPrompt, TextPrompts or IdPrompts; None for what only the engine can
         turn into tokens. text_of: bytes that stand for the prompt's text.
Cost     O(messages), or O(token ids).
Errors   none: malformed input gives None, and the engine will refuse it.
Source   build_chat_params, build_tok_params and the validators of vLLM v0.32.0:
         entrypoints/openai/{chat_completion,completion}/protocol.py,
         entrypoints/serve/tokenize/protocol.py, entrypoints/pooling/base/protocol.py.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from lodestar_router.tokens.messages import Message, tool_dicts

TokenIds = npt.NDArray[np.uint32]
Body = Mapping[str, Any]

_MAX_TOKEN_ID = 2**32 - 1

# Template arguments with a meaning of their own in the engine's call; a request
# that sets one through chat_template_kwargs is left to the engine.
_RESERVED_ARGUMENTS = frozenset({
    "chat_template", "conversation", "max_length", "messages", "model_config", "padding",
    "return_assistant_tokens_mask", "return_dict", "return_tensors", "tokenize", "tokenizer",
    "tokenizer_kwargs", "tools", "truncation",
})  # fmt: skip


class ChatPrompt(Struct, frozen=True, kw_only=True):
    """Messages to be rendered by the model's chat template."""

    messages: list[Any]
    tools: list[Message] | None
    arguments: Mapping[str, Any]  # for the template, before the server's defaults
    continue_final_message: bool
    add_special_tokens: bool
    rename_reasoning: bool  # take `reasoning_content` for `reasoning`


class TextPrompts(Struct, frozen=True, kw_only=True):
    """Texts to be tokenized as they are, one sequence each."""

    texts: tuple[str, ...]
    add_special_tokens: bool


class IdPrompts(Struct, frozen=True, kw_only=True, eq=False):
    """Token ids that the client sent."""

    sequences: tuple[TokenIds, ...]


Prompt = ChatPrompt | TextPrompts | IdPrompts


def read_prompt(endpoint: str, body: Body) -> Prompt | None:
    """The prompt of a request; None when its token ids cannot be known here."""
    if body.get("prompt_embeds") is not None or body.get("suffix") is not None:
        return None
    transfer = body.get("kv_transfer_params")
    if isinstance(transfer, dict) and transfer.get("prompt_token_ids") is not None:
        return None
    kind = _kind(endpoint)
    if kind is None:
        return None
    if "messages" in body and kind != "completions":
        return _chat(kind, body)
    if kind == "chat":
        return None
    return _texts_or_ids(body, body.get("input" if kind == "pooling" else "prompt"))


def truncation_applies(body: Body, sequences: tuple[TokenIds, ...]) -> bool:
    """Whether the engine would cut the prompt; where it cuts depends on the engine."""
    limit = body.get("truncate_prompt_tokens")
    if limit is None:
        return False
    return not isinstance(limit, int) or limit < max(map(len, sequences), default=0)


def _kind(endpoint: str) -> str | None:
    path = endpoint.rstrip("/")
    if path.endswith("/chat/completions"):
        return "chat"
    if path.endswith("/completions"):
        return "completions"
    if path.endswith("/tokenize"):
        return "tokenize"
    return "pooling" if path.endswith(("/embeddings", "/pooling", "/classify")) else None


def _chat(kind: str, body: Body) -> ChatPrompt | None:
    messages = body["messages"]
    generation = body.get("add_generation_prompt", kind != "pooling")
    continued = body.get("continue_final_message", False)
    special = body.get("add_special_tokens", False)
    own = body.get("chat_template_kwargs")
    flags_known = type(generation) is bool and type(continued) is bool and type(special) is bool
    if (
        not isinstance(messages, list)
        or not messages
        or not flags_known
        or (generation and continued)
        or body.get("chat_template") is not None
        or not (own is None or isinstance(own, dict))
        or (own and not _RESERVED_ARGUMENTS.isdisjoint(own))
    ):
        return None
    tools = body.get("tools") if kind != "pooling" else None
    if tools is not None:
        if not isinstance(tools, list) or (kind == "chat" and not tools):
            return None
        tools = tool_dicts(tools)
        if tools is None:
            return None
    arguments = _set_only(own) if own else {}
    if kind == "chat" and not _REASONING.isdisjoint(body):
        arguments |= _reasoning(body, own or {})
    arguments["add_generation_prompt"] = generation
    arguments["continue_final_message"] = continued
    return ChatPrompt(
        messages=messages,
        tools=tools,
        arguments=arguments,
        continue_final_message=continued,
        add_special_tokens=special,
        rename_reasoning=kind == "chat",
    )


_REASONING = frozenset({"documents", "reasoning_effort"})


def _reasoning(body: Body, own: Mapping[str, Any]) -> dict[str, Any]:
    effort = body.get("reasoning_effort")
    extra = {"documents": body.get("documents"), "reasoning_effort": effort}
    if effort is not None and "enable_thinking" not in own:
        extra["enable_thinking"] = effort != "none"
    return _set_only(extra)


def _set_only(arguments: Mapping[str, Any]) -> dict[str, Any]:
    # The engine takes None and "auto" for "not given", in every template argument.
    return {key: value for key, value in arguments.items() if value not in (None, "auto")}


def _texts_or_ids(body: Body, prompt: Any) -> TextPrompts | IdPrompts | None:
    special = body.get("add_special_tokens", True)
    if not isinstance(special, bool):
        return None
    if isinstance(prompt, str):
        return TextPrompts(texts=(prompt,), add_special_tokens=special)
    if not isinstance(prompt, list) or not prompt:
        return None
    if isinstance(prompt[0], str):
        if not all(isinstance(text, str) for text in prompt):
            return None
        return TextPrompts(texts=tuple(prompt), add_special_tokens=special)
    batches = prompt if isinstance(prompt[0], list) else [prompt]
    sequences = [_ids(batch) for batch in batches]
    known = tuple(ids for ids in sequences if ids is not None)
    return IdPrompts(sequences=known) if len(known) == len(sequences) else None


def _ids(values: Any) -> TokenIds | None:
    if not isinstance(values, list) or not values:
        return None
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        return None
    if array.ndim != 1 or array.dtype.kind not in "iu":
        return None
    if array.min() < 0 or array.max() > _MAX_TOKEN_ID:
        return None
    return array.astype(np.uint32)


def text_of(endpoint: str, body: Body) -> bytes:
    """Bytes that stand for the prompt when its token ids are not known.

    A conversation's next turn starts with the bytes of this one, as far as the
    messages are the same. Only equality matters; nothing decodes them.
    """
    del endpoint  # each endpoint has its own prompt key
    messages = body.get("messages")
    if isinstance(messages, list):
        parts = [_json(body["tools"])] if body.get("tools") else []
        parts.extend(map(_message_text, messages))
        return "\x1e".join(parts).encode("utf-8", "surrogatepass")
    prompt = next((body[key] for key in ("prompt", "input", "query") if body.get(key)), "")
    if isinstance(prompt, list) and all(isinstance(text, str) for text in prompt):
        prompt = "\x1e".join(prompt)
    text = prompt if isinstance(prompt, str) else _json(prompt)
    return text.encode("utf-8", "surrogatepass")


def _message_text(message: Any) -> str:
    if isinstance(message, dict) and isinstance(content := message.get("content"), str):
        rest = [_json(message[key]) for key in ("tool_calls",) if message.get(key)]
        return "\x1f".join([str(message.get("role")), content, *rest])
    return _json(message)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)
