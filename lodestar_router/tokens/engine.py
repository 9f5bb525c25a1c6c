"""Token ids from an engine's POST /tokenize, for models without a tokenizer here.

In       a prompt; an async function that posts to an engine that serves the model.
Out      one sequence of ids per prompt, or None.
Cost     a round trip per text, and the engine's own tokenizing.
Errors   none: an engine that fails or refuses gives None.
Source   vllm/entrypoints/serve/tokenize/protocol.py at v0.32.0.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from lodestar_router.errors import RouterError
from lodestar_router.tokens.request import ChatPrompt, TextPrompts, TokenIds

# (model, body for POST /tokenize) -> ids. It may answer None or raise EngineError,
# OSError or TimeoutError when no engine gives them.
EngineTokenize = Callable[[str, dict[str, Any]], Awaitable[Sequence[int] | None]]

# Texts of one request. Beyond it the round trips would cost more than knowing the
# ids is worth.
_MOST_TEXTS = 16

_FLAGS = ("add_generation_prompt", "continue_final_message")


async def engine_ids(
    prompt: ChatPrompt | TextPrompts, model: str, ask: EngineTokenize
) -> tuple[TokenIds, ...] | None:
    """The ids of the prompt's texts, asked for at once."""
    payloads = tokenize_payloads(prompt, model)
    if len(payloads) > _MOST_TEXTS:
        return None
    answers = await asyncio.gather(*(_ask(payload, model, ask) for payload in payloads))
    known = tuple(ids for ids in answers if ids is not None)
    return known if len(known) == len(answers) else None


def tokenize_payloads(prompt: ChatPrompt | TextPrompts, model: str) -> list[dict[str, Any]]:
    """The bodies to post, one per sequence."""
    common = {"model": model, "add_special_tokens": prompt.add_special_tokens}
    if isinstance(prompt, TextPrompts):
        return [{**common, "prompt": text} for text in prompt.texts]
    arguments = {key: value for key, value in prompt.arguments.items() if key not in _FLAGS}
    payload = common | {key: prompt.arguments[key] for key in _FLAGS}
    payload["messages"] = [
        _with_reasoning(message) if prompt.rename_reasoning else message
        for message in prompt.messages
    ]
    if prompt.tools is not None:
        payload["tools"] = prompt.tools
    if arguments:
        payload["chat_template_kwargs"] = arguments
    return [payload]


def _with_reasoning(message: Any) -> Any:
    # /v1/chat/completions takes `reasoning_content` for `reasoning`, /tokenize does not.
    if not isinstance(message, dict) or message.get("reasoning_content") is None:
        return message
    renamed = {key: value for key, value in message.items() if key != "reasoning_content"}
    if renamed.get("reasoning") is None:
        renamed["reasoning"] = message["reasoning_content"]
    return renamed


async def _ask(payload: dict[str, Any], model: str, ask: EngineTokenize) -> TokenIds | None:
    try:
        ids = await ask(model, payload)
        return None if ids is None else np.asarray(ids, dtype=np.uint32)
    except (RouterError, OSError, TimeoutError, ValueError, TypeError, OverflowError):
        return None
