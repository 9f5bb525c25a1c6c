"""A request's prompt as the block keys that its engine's KV cache would hold.

In       token ids, or UTF-8 bytes when no tokenizer is at hand; LoRA name, cache salt.
Out      Prompt.keys(block size), one list of keys per sequence; also the keys of
         the blocks an engine reports in a BlockStored event: the two agree.
Cost     see `core/block_keys.py`; keys are computed once per block size.
Source   vllm/v1/core/kv_cache_utils.py at v0.32.0, generate_block_hash_extra_keys:
         the LoRA name is part of every block, the cache salt of the first one.

A prompt with images or embeddings has identity the router does not see; its
keys match up to the first such block, as a prompt of other content would.
"""

from collections.abc import Sequence

import numpy as np

from lodestar_router.core.block_keys import (
    TokenArray,
    chain_keys,
    extend_key,
    extra_word,
    seed_key,
)
from lodestar_router.core.kv_events import BlockStored, ExtraKeys

BYTES_PER_TOKEN = 4  # English text under common tokenizers: 4 to 4.5
TEXT_BLOCK_TOKENS = 16  # as vLLM's default block, in estimated tokens
_TEXT = 1  # purpose of a seed: text is not to be taken for token ids
_FEW_BLOCKS = 5  # up to here one block at a time is faster than arrays


class Prompt:
    """What one request asks an engine to prefill: usually one sequence, or a batch.

    Immutable. Compared by identity: one object stands for one request.
    """

    __slots__ = (
        "__weakref__", "_extras", "_keys", "_sequences", "_sizes", "tokens", "tokens_known",
    )  # fmt: skip

    def __init__(
        self,
        token_ids: Sequence[TokenArray],
        *,
        lora_name: str | None = None,
        cache_salt: str | None = None,
    ) -> None:
        self._sequences = [np.ascontiguousarray(ids, dtype=np.uint32) for ids in token_ids]
        self._sizes = [len(ids) for ids in self._sequences]
        self._extras = _request_extras(lora_name, cache_salt)
        self._keys: dict[int, list[list[int]]] = {}
        self.tokens = sum(self._sizes)
        self.tokens_known = True

    @classmethod
    def from_text(
        cls,
        text: bytes | Sequence[bytes],
        *,
        lora_name: str | None = None,
        cache_salt: str | None = None,
    ) -> "Prompt":
        """A prompt whose tokens are unknown, estimated as four bytes of UTF-8 each."""
        texts = [text] if isinstance(text, bytes) else text
        words = [
            np.frombuffer(part, dtype="<u4", count=len(part) // BYTES_PER_TOKEN) for part in texts
        ]
        prompt = cls(words, lora_name=lora_name, cache_salt=cache_salt)
        prompt._sizes = [-(-len(part) // BYTES_PER_TOKEN) for part in texts]
        prompt.tokens = sum(prompt._sizes)
        prompt.tokens_known = False
        return prompt

    def again(self) -> "Prompt":
        """The same content for another request; keys that one of them computed serve both."""
        other = object.__new__(Prompt)
        other._sequences, other._sizes = self._sequences, self._sizes
        other._extras, other._keys = self._extras, self._keys
        other.tokens, other.tokens_known = self.tokens, self.tokens_known
        return other

    @property
    def is_single(self) -> bool:
        """Whether the prompt is one sequence, not a batch."""
        return len(self._sizes) == 1

    def keys(self, block_size_tokens: int) -> list[list[int]]:
        """Keys of the full blocks of each sequence; empty lists if tokens are unknown."""
        if not self.tokens_known:
            return [[] for _ in self._sequences]
        return self._chained(block_size_tokens)

    def text_keys(self) -> list[list[int]]:
        """Keys of the text in blocks of TEXT_BLOCK_TOKENS; empty lists if tokens are known."""
        if self.tokens_known:
            return [[] for _ in self._sequences]
        return self._chained(TEXT_BLOCK_TOKENS, _TEXT)

    def reusable_blocks(self, block_size_tokens: int) -> list[int]:
        """Blocks of each sequence that can come from the cache.

        At least the last token is always computed, and hits are whole blocks.
        """
        return [max(size - 1, 0) // block_size_tokens for size in self._sizes]

    def _chained(self, block_size_tokens: int, purpose: int = 0) -> list[list[int]]:
        keys = self._keys.get(block_size_tokens)
        if keys is None:
            seed = seed_key(block_size_tokens, purpose)
            keys = [self._chain(seed, ids, block_size_tokens) for ids in self._sequences]
            self._keys[block_size_tokens] = keys
        return keys

    def _chain(self, parent: int, tokens: TokenArray, block_size_tokens: int) -> list[int]:
        return chain_keys(parent, tokens, block_size_tokens, self._extras)

    def __repr__(self) -> str:
        known = "" if self.tokens_known else " estimated"
        return f"<Prompt: {len(self._sizes)} sequences, {self.tokens}{known} tokens>"


def stored_keys(event: BlockStored, parent: int | None) -> Sequence[int] | None:
    """Keys of an event's blocks; `parent` is the key of its parent block, if it has one.

    None when the event's tokens do not make up its blocks: a group that caches
    only some blocks of a sequence reports so, and such blocks cannot be named.
    """
    if event.keys is not None:
        return event.keys
    size, count = event.block_size_tokens, len(event.block_hashes)
    if size < 1 or len(event.token_ids) != size * count:
        return None
    key = seed_key(size) if parent is None else parent
    extras = _event_extras(event)
    if count > _FEW_BLOCKS:
        tokens = np.asarray(event.token_ids, dtype=np.uint32)
        return chain_keys(key, tokens, size, extras)
    tokens_list, keys = event.token_ids, []
    for index, start in enumerate(range(0, size * count, size)):
        key = extend_key(key, tokens_list[start : start + size], extras[index] if extras else 0)
        keys.append(key)
    return keys


def _request_extras(lora_name: str | None, cache_salt: str | None) -> tuple[int, ...]:
    """Extra words of a request's first block, and of all later ones."""
    if not lora_name and not cache_salt:
        return ()
    salted = (cache_salt,) if cache_salt else ()
    return (_named_word(lora_name, salted), _named_word(lora_name, ()))


def _event_extras(event: BlockStored) -> tuple[int, ...]:
    """One extra word per block, or nothing when no block has any.

    Engines before `extra_keys` send the LoRA name alone; later ones repeat it
    at the head of every block's keys. Both give the same words.
    """
    name, per_block = event.lora_name, event.extra_keys
    if per_block is None or len(per_block) != len(event.block_hashes):
        return (_named_word(name, ()),) * len(event.block_hashes) if name else ()
    if not name and not any(per_block):
        return ()
    return tuple(_named_word(name, _without_name(name, extra or ())) for extra in per_block)


def _without_name(name: str | None, extra: ExtraKeys) -> ExtraKeys:
    return extra[1:] if name and extra[:1] == (name,) else extra


def _named_word(lora_name: str | None, rest: ExtraKeys) -> int:
    """The LoRA name is told apart from a salt of the same spelling by its place."""
    return extra_word((lora_name or "", rest)) if lora_name or rest else 0
