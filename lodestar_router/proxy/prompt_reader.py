"""A request's head and prompt out of its body; bodies that keep coming are read once.

In       path and body; which model the request is for, once aliases are resolved.
Out      RequestHead, then Prompt: token ids, text in their place, or None.
Cost     of a body seen before see `seen_bodies`; of any other see `tokens`.
Errors   RequestError for a body that cannot be routed.
"""

from typing import Any

import msgspec

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.fleet import Fleet
from lodestar_router.proxy.json_depth import JSON_DEPTH, check_depth
from lodestar_router.proxy.request_body import RequestHead, read_whole
from lodestar_router.proxy.seen_bodies import Key, SeenBodies, key_of
from lodestar_router.tokens.service import Prompted, TokenService
from lodestar_router.tokens.tokenizer import Tokenizer

REMEMBERED_BYTES = 32 * 1024 * 1024  # a thousand prompts of 8,000 tokens
_KEYS_BYTES_PER_TOKEN = 8  # ids, and keys of blocks of 16


class _Remembered(msgspec.Struct, frozen=True):
    """What a body came to, and on what that depends."""

    head: RequestHead
    model: str
    tokenizer: Tokenizer
    lora_name: str | None
    prompt: Prompt


class Reading(msgspec.Struct):
    """A body being read: its head is known."""

    path: str
    body: bytes
    head: RequestHead
    key: Key
    decoded: dict[str, Any] | None = None
    remembered: _Remembered | None = None


class PromptReader:
    """See the module."""

    def __init__(
        self,
        tokens: TokenService,
        fleet: Fleet,
        *,
        json_depth: int = JSON_DEPTH,
        remembered_bytes: int = REMEMBERED_BYTES,
    ) -> None:
        self._json_depth = json_depth
        self._tokens = tokens
        self._fleet = fleet
        self._seen: SeenBodies[_Remembered] = SeenBodies(remembered_bytes)

    def begin(self, path: str, body: bytes) -> Reading:
        """Read the head.

        Raises:
            RequestError: see check_depth and read_whole.
        """
        key = key_of(path, body)
        known = self._seen.find(key, body)
        if known is not None:
            return Reading(path, body, known.head, key, None, known)
        check_depth(body, self._json_depth)
        head, decoded = read_whole(body)
        return Reading(path, body, head, key, decoded)

    async def prompt(self, reading: Reading, model: str) -> Prompt | None:
        """The prompt, of a request that goes to `model`."""
        tokenizer = self._tokens.tokenizer(model)
        lora_name = self._lora_name(model)
        known = reading.remembered
        if known is not None:
            if (known.model, known.lora_name) == (model, lora_name) and (
                known.tokenizer is tokenizer
            ):
                return known.prompt.again()
            reading.decoded = read_whole(reading.body)[1]
        decoded = reading.decoded
        assert decoded is not None
        decoded["model"] = model
        prompted = self._tokens.tokenize_now(reading.path, decoded)
        if prompted is None:
            prompted = await self._tokens.tokenize(reading.path, decoded)
        if prompted is None:
            text = self._tokens.text_of(reading.path, decoded)
            return Prompt.from_text(text, lora_name=lora_name) if text else None
        prompt = Prompt(prompted.sequences, lora_name=lora_name, cache_salt=prompted.cache_salt)
        if tokenizer is not None and _is_repeatable(prompted, tokenizer):
            self._seen.note(
                reading.key,
                reading.body,
                _Remembered(reading.head, model, tokenizer, lora_name, prompt),
                more_bytes=_KEYS_BYTES_PER_TOKEN * prompt.tokens,
            )
        return prompt

    def _lora_name(self, model: str) -> str | None:
        """The adapter's name if the model is one: its card names a parent."""
        card = self._fleet.card(model)
        return model if card is not None and card.get("parent") else None


def _is_repeatable(prompted: Prompted, tokenizer: Tokenizer) -> bool:
    """Whether the same body gives the same ids again."""
    return prompted.source == "router" and not tokenizer.reads_clock
