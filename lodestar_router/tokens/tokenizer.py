"""One model's tokenizer: texts and conversations to the engine's token ids.

In       text, or a ChatPrompt.
Out      token ids, uint32 [tokens], as the engine's POST /tokenize gives them.
Cost     grows with the text not seen before, see `segments`; a conversation is
         rendered anew each time, see `templates`.
Errors   ConfigError on loading. Input that the template rejects or that cannot
         be encoded gives None.
Source   vllm/renderers/hf.py at v0.32.0.

Encoding releases the GIL and may run in another thread; no method changes the
tokenizer apart from its cache.
"""

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from lodestar_router.errors import ConfigError
from lodestar_router.tokens.cache import SegmentCache
from lodestar_router.tokens.content_format import ContentFormat
from lodestar_router.tokens.files import read_files
from lodestar_router.tokens.messages import conversation, developer_as_system
from lodestar_router.tokens.request import ChatPrompt, TextPrompts, TokenIds
from lodestar_router.tokens.segments import Plan, Segmenter
from lodestar_router.tokens.templates import ChatTemplate

CACHE_BYTES = 64 * 1024 * 1024  # some 8 million tokens of text; a model's share of memory

# Arguments the engine hands to every template; others only if it declares them.
_COMMON_ARGUMENTS = frozenset({"add_generation_prompt", "continue_final_message", "documents"})


class Tokenizer:
    """Ids of a prompt, from segments that were encoded before and those that are new."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        templates: Mapping[str, ChatTemplate],
        special_tokens: Mapping[str, str],
        content_format: ContentFormat | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.cache = SegmentCache(cache_bytes)
        self.segmenter = Segmenter(backend, self.cache)
        self._templates = dict(templates)
        self._special_tokens = dict(special_tokens)
        self._content_format = content_format
        self._template_arguments = dict(template_arguments or {})
        self._around = _tokens_around(backend)
        # Whether the same messages may give other ids at another time.
        self.reads_clock = any(template.reads_clock for template in templates.values())

    @classmethod
    def load(
        cls,
        path_or_id: str,
        *,
        chat_template: str | None = None,
        content_format: ContentFormat | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        cache_bytes: int = CACHE_BYTES,
        now: Callable[[], datetime] = datetime.now,
    ) -> "Tokenizer":
        """Load from a directory or the Hub; the options are those given to the engine.

        chat_template       file, `--chat-template`
        content_format      `--chat-template-content-format`, None for auto
        template_arguments  `--default-chat-template-kwargs`
        """
        # Its thread pool would take every core from the event loop.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        files = read_files(path_or_id)
        sources = dict(files.templates)
        if chat_template is not None:
            sources = {"default": _read_template(chat_template)}
        return cls(
            files.backend,
            templates={
                name: ChatTemplate(source, name=f"{path_or_id} ({name})", now=now)
                for name, source in sources.items()
            },
            special_tokens=files.special_tokens,
            content_format=content_format,
            template_arguments=template_arguments,
            cache_bytes=cache_bytes,
        )

    def encode_text(self, text: str, add_special_tokens: bool = True) -> TokenIds | None:
        """The ids of one text; None for text that is not Unicode."""
        plans = self.plan(TextPrompts(texts=(text,), add_special_tokens=add_special_tokens))
        return None if plans is None else self.finish(plans, add_special_tokens)[0]

    def encode_chat(self, prompt: ChatPrompt) -> TokenIds | None:
        """The ids of a conversation; None when it cannot be rendered."""
        plans = self.plan(prompt)
        return None if plans is None else self.finish(plans, prompt.add_special_tokens)[0]

    def render(self, prompt: ChatPrompt) -> str | None:
        """The text of a conversation; None when the template rejects it."""
        arguments = {**self._template_arguments, **prompt.arguments}
        template = self._template_for(prompt)
        if template is None:
            return None
        messages = conversation(
            prompt.messages,
            self._content_format or template.content_format,
            rename_reasoning=prompt.rename_reasoning,
        )
        if messages is None:
            return None
        if not template.knows_developer:
            messages = developer_as_system(messages)
        allowed = template.variables | _COMMON_ARGUMENTS
        taken = {key: value for key, value in arguments.items() if key in allowed}
        taken.pop("continue_final_message", None)
        return template.render(
            messages,
            tools=prompt.tools,
            continue_final_message=prompt.continue_final_message,
            arguments={"documents": None, **self._special_tokens, **taken},
        )

    def plan(self, prompt: ChatPrompt | TextPrompts) -> list[Plan] | None:
        """What of the prompt has to be encoded; None when it cannot be."""
        texts = prompt.texts if isinstance(prompt, TextPrompts) else (self.render(prompt),)
        known = [text for text in texts if text is not None and _is_unicode(text)]
        if len(known) < len(texts):
            return None
        return [self.segmenter.plan(text) for text in known]

    def finish(self, plans: list[Plan], add_special_tokens: bool) -> tuple[TokenIds, ...]:
        """The ids of each planned text."""
        sequences = tuple(self.segmenter.finish(plan) for plan in plans)
        if not add_special_tokens or not any(map(len, self._around)):
            return sequences
        before, after = self._around
        return tuple(np.concatenate((before, ids, after)) for ids in sequences)

    def _template_for(self, prompt: ChatPrompt) -> ChatTemplate | None:
        if prompt.tools is not None and "tool_use" in self._templates:
            return self._templates["tool_use"]
        return self._templates.get("default")


def _read_template(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"chat template {path}: {error}") from error


def _is_unicode(text: str) -> bool:
    # JSON may spell half of a surrogate pair, which no tokenizer takes.
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tokens_around(backend: tokenizers.Tokenizer) -> tuple[TokenIds, TokenIds]:
    """The ids that the tokenizer puts before and after a whole sequence."""
    try:
        encoding = backend.encode("a", add_special_tokens=True)
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"tokenizer cannot encode the letter a: {error}") from error
    inner = len(backend.encode("a", add_special_tokens=False).ids)
    ids = np.array(encoding.ids, dtype=np.uint32)
    before = next((i for i, added in enumerate(encoding.special_tokens_mask) if not added), 0)
    return ids[:before].copy(), ids[before + inner :].copy()
