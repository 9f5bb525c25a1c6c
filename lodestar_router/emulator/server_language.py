"""Texts and token ids of an emulated engine: prompts in, answers out.

    answer = words of the vocabulary, each one token, drawn by a hash of a seed

A word is used when it keeps its token id wherever it stands between words, so an
answer that a client sends back in its next turn is tokenized as it was generated
and meets its KV blocks.

In       a tokenizer directory or Hub id; request bodies; seeds and lengths.
Out      uint32 token ids; Answer: ids, and the text of any part of them.
Cost     loading 0.05 s for the built-in tokenizer, about 1 s for one of 128,000
         tokens; an answer about 0.1 us per token.
Errors   ConfigError on loading; TextError for a prompt that cannot be tokenized.
Source   vllm/renderers/hf.py at v0.32.0, by way of lodestar_router.tokens.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tokenizers

from lodestar_router.core.block_keys import TokenArray
from lodestar_router.emulator.sequence import answer_tokens
from lodestar_router.emulator.server_tokenizer import builtin_tokenizer
from lodestar_router.errors import ConfigError, RequestError
from lodestar_router.tokens.files import read_files
from lodestar_router.tokens.request import ChatPrompt, IdPrompts, read_prompt
from lodestar_router.tokens.tokenizer import Tokenizer

# A space as byte-level and as SentencePiece vocabularies write it, and plain letters.
_SPACED = re.compile("[Ġ▁]([a-z]{2,12})")
_PLAIN = re.compile("[a-z]{2,12}")
_MOST_WORDS = 8192  # enough that texts differ; checking more would only take time
# Answers without a length of their own: ln-normal, as conversation traces roughly are.
_MEDIAN_TOKENS, _LOG_DEVIATION = 120, 0.7


class TextError(RequestError):
    """The prompt cannot be made into token ids."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, known before the engine has computed it."""

    token_ids: TokenArray
    words: Sequence[str]  # the text of each token; "" for the end mark
    ended: bool  # by the end mark, before the length that was allowed

    def text(self, start: int, stop: int) -> str:
        """The text of tokens [start, stop)."""
        return "".join(self.words[start:stop])


class Language:
    """One tokenizer, shared by all engines of a process that use it."""

    def __init__(self, path_or_id: str | None = None) -> None:
        """None is the built-in tokenizer."""
        source = str(builtin_tokenizer()) if path_or_id is None else path_or_id
        files = read_files(source)
        self.tokenizer = Tokenizer.load(source)
        self.root = str(Path(source).resolve()) if Path(source).is_dir() else source
        self._backend = files.backend
        self.vocab_size = self._backend.get_vocab_size()
        end = files.special_tokens.get("eos_token", "")
        self._end_id: int | None = self._backend.token_to_id(end)
        self._spaced = _Words(self._backend, _SPACED, "a ", " ")
        self._plain = _Words(self._backend, _PLAIN, "", "")
        if not self._spaced.texts:
            raise ConfigError(f"tokenizer {source} has no words of its own to answer with")

    def encode(self, endpoint: str, body: Mapping[str, Any]) -> tuple[TokenArray, ...]:
        """The prompts of a request body, in order.

        Raises:
            TextError: they cannot be tokenized here.
        """
        prompt = read_prompt(endpoint, body)
        if prompt is None:
            raise TextError("the prompt cannot be tokenized by the emulated engine")
        if isinstance(prompt, IdPrompts):
            for ids in prompt.sequences:
                if ids.max() >= self.vocab_size:
                    raise TextError(f"Token id {ids.max()} is out of vocabulary")
            return prompt.sequences
        plans = self.tokenizer.plan(prompt)
        if plans is None:
            what = "conversation" if isinstance(prompt, ChatPrompt) else "prompt"
            raise TextError(f"the {what} cannot be rendered")
        return self.tokenizer.finish(plans, prompt.add_special_tokens)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of any token ids, special ones included."""
        return str(self._backend.decode(list(token_ids), skip_special_tokens=False))

    def tokens(self, token_ids: Sequence[int]) -> list[str | None]:
        """Token ids as the vocabulary writes them."""
        return [self._backend.id_to_token(token_id) for token_id in token_ids]

    def answer(self, seed: int, most_tokens: int, *, chat: bool, may_end: bool) -> Answer:
        """An answer of at most `most_tokens`.

        With `may_end` it stops where it is natural to; else it has them all.
        """
        count, end_id = most_tokens, None
        if may_end:
            natural = int(_MEDIAN_TOKENS * Random(seed).lognormvariate(0.0, _LOG_DEVIATION)) + 2
            if natural <= most_tokens:
                count, end_id = natural, self._end_id
        drawn = answer_tokens(seed, 0, count, len(self._spaced.texts))
        token_ids = self._spaced.ids[drawn]
        texts = self._spaced.texts
        words = [texts[index] for index in drawn.tolist()]
        if chat and self._plain.texts:
            # Chat templates may strip a message, so it begins without a space.
            first = int(drawn[0]) % len(self._plain.texts)
            token_ids[0], words[0] = self._plain.ids[first], self._plain.texts[first]
        if end_id is not None:
            token_ids[-1], words[-1] = end_id, ""
        return Answer(token_ids, words, count < most_tokens or end_id is not None)


class _Words:
    """Tokens that are one word each; `texts[i]` belongs to `ids[i]`."""

    def __init__(
        self, backend: tokenizers.Tokenizer, shape: re.Pattern[str], before: str, space: str
    ) -> None:
        named = {
            space + match[match.re.groups]: token_id
            for token, token_id in sorted(backend.get_vocab().items())
            if (match := shape.fullmatch(token))
        }
        texts = list(named)[:: len(named) // _MOST_WORDS + 1]
        lead = before.rstrip()
        encodings = backend.encode_batch([lead + text for text in texts], add_special_tokens=False)
        skipped = len(backend.encode(lead, add_special_tokens=False).ids) if lead else 0
        kept = [
            text
            for text, encoding in zip(texts, encodings, strict=True)
            if encoding.ids[skipped:] == [named[text]]
        ]
        self.texts = kept
        self.ids = np.array([named[text] for text in kept], dtype=np.uint32)
