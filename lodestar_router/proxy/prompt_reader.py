"""A request's head and prompt out of its body; bodies that keep coming are read once.

Retries, samples of one prompt and probes send the same bytes again. From the
third time on such a body costs its digest and a comparison, whatever its length.

In       path and body; which model the request is for, once aliases are resolved.
Out      RequestHead, then Prompt: token ids, text in their place, or None.
Cost     of a body seen before 1 us, and 0.1 us per KB; of any other see `tokens`.
         Memory at most REMEMBERED_BYTES, and a digest for the last SEEN_ONCE others.
Errors   RequestError for a body that cannot be routed.
"""

from collections import OrderedDict
from typing import Any

import msgspec
import xxhash

from lodestar_router.core.blocks import Prompt
from lodestar_router.core.fleet import Fleet
from lodestar_router.proxy.json_depth import JSON_DEPTH, check_depth
from lodestar_router.proxy.request_body import RequestHead, read_whole
from lodestar_router.tokens.service import Prompted, TokenService
from lodestar_router.tokens.tokenizer import Tokenizer

REMEMBERED_BYTES = 32 * 1024 * 1024  # a thousand prompts of 8,000 tokens
SEEN_ONCE = 4096

_KEYS_BYTES_PER_TOKEN = 8  # ids, and keys of blocks of 16
_ENTRY_BYTES = 1024

_Key = tuple[str, int]  # path, digest of the body


class _Remembered(msgspec.Struct, frozen=True):
    """What a body came to, and on what that depends."""

    body: bytes
    head: RequestHead
    model: str
    tokenizer: Tokenizer
    lora_name: str | None
    prompt: Prompt

    @property
    def size_bytes(self) -> int:
        return _ENTRY_BYTES + len(self.body) + _KEYS_BYTES_PER_TOKEN * self.prompt.tokens


class Reading(msgspec.Struct):
    """A body being read: its head is known."""

    path: str
    body: bytes
    head: RequestHead
    key: _Key
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
        self._limit_bytes = remembered_bytes
        self._used_bytes = 0
        self._remembered: OrderedDict[_Key, _Remembered] = OrderedDict()
        self._seen: OrderedDict[_Key, None] = OrderedDict()

    def begin(self, path: str, body: bytes) -> Reading:
        """Read the head.

        Raises:
            RequestError: see check_depth and read_whole.
        """
        key = (path, xxhash.xxh3_64_intdigest(body))
        known = self._remembered.get(key)
        if known is not None and known.body == body:
            self._remembered.move_to_end(key)
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
            self._note(
                reading.key,
                _Remembered(reading.body, reading.head, model, tokenizer, lora_name, prompt),
            )
        return prompt

    def _note(self, key: _Key, entry: _Remembered) -> None:
        """Remember a body that was seen before; of others only that they were seen."""
        if key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > SEEN_ONCE:
                self._seen.popitem(last=False)
            return
        if (old := self._remembered.pop(key, None)) is not None:
            self._used_bytes -= old.size_bytes
        self._remembered[key] = entry
        self._used_bytes += entry.size_bytes
        while self._used_bytes > self._limit_bytes:
            self._used_bytes -= self._remembered.popitem(last=False)[1].size_bytes

    def _lora_name(self, model: str) -> str | None:
        """The adapter's name if the model is one: its card names a parent."""
        card = self._fleet.card(model)
        return model if card is not None and card.get("parent") else None


def _is_repeatable(prompted: Prompted, tokenizer: Tokenizer) -> bool:
    """Whether the same body gives the same ids again."""
    return prompted.source == "router" and not tokenizer.reads_clock
