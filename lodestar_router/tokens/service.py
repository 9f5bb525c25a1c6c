"""Requests to token ids for all models, without holding up the event loop.

In       endpoint path and decoded body; a tokenizer per model, or an engine's
         POST /tokenize for models without one.
Out      Prompted, or None when only the engine can know the token ids.
Cost     tokenize_now: rendering and lookups, see `templates` and `segments`;
         tokenize: the same in a thread, and about 1 ms per 1,000 new tokens.
Errors   none for client input: the engine will answer it.

`tokenize_now` is for the event loop: it renders and encodes only as much as the
two limits allow and leaves the rest to `tokenize`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from msgspec import Struct

from lodestar_router.tokens.engine import EngineTokenize, engine_ids
from lodestar_router.tokens.request import (
    Body,
    ChatPrompt,
    IdPrompts,
    Prompt,
    TextPrompts,
    TokenIds,
    read_prompt,
    text_of,
    truncation_applies,
)
from lodestar_router.tokens.segments import Plan
from lodestar_router.tokens.tokenizer import Tokenizer

_logger = logging.getLogger(__name__)

# Characters not seen before, some 500 tokens or 0.5 ms: about what handing the
# work to a thread and back costs a busy loop.
INLINE_CHARS = 2048

# Characters of all messages or prompts, 1-2 ms to render and look up.
INLINE_PROMPT_CHARS = 256 * 1024

TokenizerOf = Callable[[str], Tokenizer | None]

_PROBES: tuple[ChatPrompt | TextPrompts, ...] = (
    TextPrompts(
        texts=(" The  quick\n\n\tbrown fox; it's 12345 Größe 東京 \u2581x",),
        add_special_tokens=True,
    ),
    ChatPrompt(
        messages=[
            {"role": "system", "content": " Be brief. "},
            {"role": "user", "content": "Hi,\n\nwhat's 2+2?"},
            {"role": "assistant", "content": "4"},
            {"role": "user", "content": "  Thanks! 東京 "},
        ],
        tools=None,
        arguments={"add_generation_prompt": True, "continue_final_message": False},
        continue_final_message=False,
        add_special_tokens=False,
        rename_reasoning=False,
    ),
)


class Prompted(Struct, frozen=True, kw_only=True, eq=False):
    """A request's prompt as token ids."""

    sequences: tuple[TokenIds, ...]  # uint32 [tokens] each; more than one for a batch
    cache_salt: str | None  # part of the identity of its KV blocks
    source: Literal["router", "engine", "request"]  # who made the ids


class TokenService:
    """Answers from the cache at once, encodes in threads, asks an engine as a last resort."""

    def __init__(
        self,
        tokenizers: Mapping[str, Tokenizer] | TokenizerOf,
        *,
        threads: int = 1,
        inline_chars: int = INLINE_CHARS,
        inline_prompt_chars: int = INLINE_PROMPT_CHARS,
        engine_tokenize: EngineTokenize | None = None,
    ) -> None:
        self._tokenizer_of = tokenizers.get if isinstance(tokenizers, Mapping) else tokenizers
        self._inline_chars = inline_chars
        self._inline_prompt_chars = inline_prompt_chars
        self._ask_engine = engine_tokenize
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tokenizer")
        # What tokenize_now planned last, so that tokenize need not render again.
        self._planned: tuple[Body, list[Plan]] | None = None

    def tokenize_now(self, endpoint: str, body: Body) -> Prompted | None:
        """The ids if they cost next to nothing; None: `tokenize` may know them."""
        self._planned = None
        prompt = read_prompt(endpoint, body)
        if prompt is None:
            return None
        if isinstance(prompt, IdPrompts):
            return _prompted(body, prompt.sequences, "request")
        tokenizer = self._tokenizer(body)
        if tokenizer is None or _prompt_chars(prompt) > self._inline_prompt_chars:
            return None
        plans = tokenizer.plan(prompt)
        if plans is None:
            return None
        if sum(plan.new_chars for plan in plans) > self._inline_chars:
            self._planned = (body, plans)
            return None
        return _prompted(body, _finish(tokenizer, prompt, plans), "router")

    async def tokenize(self, endpoint: str, body: Body) -> Prompted | None:
        """The ids, encoded in a thread or by an engine; None: nobody here knows them."""
        planned = self._planned
        self._planned = None
        prompt = read_prompt(endpoint, body)
        if prompt is None:
            return None
        if isinstance(prompt, IdPrompts):
            return _prompted(body, prompt.sequences, "request")
        tokenizer = self._tokenizer(body)
        if tokenizer is None:
            return await self._from_engine(prompt, body)
        plans = planned[1] if planned is not None and planned[0] is body else None
        loop = asyncio.get_running_loop()
        sequences = await loop.run_in_executor(self._threads, _encode, tokenizer, prompt, plans)
        return _prompted(body, sequences, "router")

    def text_of(self, endpoint: str, body: Body) -> bytes:
        """Bytes that stand for the prompt when its token ids are not known."""
        return text_of(endpoint, body)

    async def verify(self, model: str) -> bool | None:
        """Whether the model's tokenizer agrees with an engine's; None: no one to ask.

        For tokenizers that the engine builds in its own way, or starts with
        another chat template: the caller then does without this one.
        """
        tokenizer = self._tokenizer_of(model)
        if tokenizer is None or self._ask_engine is None:
            return None
        for probe in _PROBES:
            theirs = await engine_ids(probe, model, self._ask_engine)
            ours = _encode(tokenizer, probe, None)
            if theirs is None and ours is None and isinstance(probe, ChatPrompt):
                continue  # a model without a chat template: neither side can render
            if theirs is None:
                return None
            if ours is None or ours[0].tolist() != theirs[0].tolist():
                _logger.warning("the tokenizer of %s differs from its engine's", model)
                return False
        return True

    def close(self) -> None:
        """End the threads once their present work is done."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def tokenizer(self, model: str) -> Tokenizer | None:
        """The one that is used for a model now."""
        return self._tokenizer_of(model)

    def _tokenizer(self, body: Body) -> Tokenizer | None:
        model = body.get("model")
        return self._tokenizer_of(model) if isinstance(model, str) else None

    async def _from_engine(self, prompt: ChatPrompt | TextPrompts, body: Body) -> Prompted | None:
        model = body.get("model")
        if self._ask_engine is None or not isinstance(model, str):
            return None
        sequences = await engine_ids(prompt, model, self._ask_engine)
        return _prompted(body, sequences, "engine")


def _prompted(
    body: Body,
    sequences: tuple[TokenIds, ...] | None,
    source: Literal["router", "engine", "request"],
) -> Prompted | None:
    if sequences is None or truncation_applies(body, sequences):
        return None
    salt = body.get("cache_salt")
    return Prompted(
        sequences=sequences,
        cache_salt=salt if isinstance(salt, str) and salt else None,
        source=source,
    )


def _encode(
    tokenizer: Tokenizer, prompt: ChatPrompt | TextPrompts, plans: list[Plan] | None
) -> tuple[TokenIds, ...] | None:
    plans = tokenizer.plan(prompt) if plans is None else plans
    return None if plans is None else _finish(tokenizer, prompt, plans)


def _finish(
    tokenizer: Tokenizer, prompt: ChatPrompt | TextPrompts, plans: list[Plan]
) -> tuple[TokenIds, ...] | None:
    try:
        return tokenizer.finish(plans, prompt.add_special_tokens)
    except ValueError:
        return None


def _prompt_chars(prompt: Prompt) -> int:
    if isinstance(prompt, TextPrompts):
        return sum(map(len, prompt.texts))
    if isinstance(prompt, IdPrompts):
        return 0
    chars = 0
    for message in prompt.messages:
        if isinstance(message, dict) and isinstance(content := message.get("content"), str):
            chars += len(content)
    return chars
