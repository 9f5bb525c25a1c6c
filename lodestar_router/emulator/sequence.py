"""A request as one engine sees it: tokens, KV blocks, progress and times.

In       EmulatedRequest, from whoever plays the client.
Out      Sequence: what the scheduler moves forward and callers read.
Cost     keys of the prompt once, if not given, about 15 us plus 0.05 us per block; generated
         tokens and their keys in batches, so a decode step pays nothing for them.
Errors   none.
Source   vllm/v1/request.py at v0.32.0 for what is counted.

Generated tokens are given, or a fixed function of a seed (by default from the
request id) and the position, so an answer can be known before it is computed,
and a follow-up prompt can hold it.
No clock or randomness.
"""

from array import array
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf

import numpy as np
import xxhash
from msgspec import Struct

from lodestar_router.core.block_keys import TokenArray, chain_keys, seed_key
from lodestar_router.emulator.decode_set import DecodeSet

# Arrays without dimensions: numpy takes them in half the time of its scalars.
_GOLDEN = np.array(0x9E3779B97F4A7C15, np.uint64)  # 2**64 / golden ratio: multiples spread
_MIX = np.array(0xD6E8FEB86659FD93, np.uint64)  # odd multiplier of a xor-shift-multiply hash
_SHIFT = np.array(32, np.uint64)
_AHEAD_TOKENS = 256  # generated at a time: amortises array calls over a typical answer


class EmulatedRequest(Struct, frozen=True, kw_only=True, eq=False):
    """What a client asks of one engine; `max_tokens` is the length of the answer."""

    request_id: str
    token_ids: SequenceOf[int] | TokenArray  # the prompt
    max_tokens: int
    arrived_at_s: float = 0.0
    answer_seed: int | None = None  # equal seeds answer alike; None: from the request id
    answer: SequenceOf[int] | TokenArray | None = None  # `max_tokens` of them; None: by the seed
    # Keys of the prompt's full blocks, of the engine's size, where they are known; None: made here.
    block_keys: SequenceOf[int] | None = None
    transferred: bool = False  # the prompt's keys and values come from another engine
    # (key of the block before, tokens, block size) -> keys of further blocks.
    chain: Callable[[int, TokenArray, int], list[int]] = chain_keys
    # (count) -> keys of blocks whose content no other request has; None: made of their tokens.
    own_keys: Callable[[int], list[int]] | None = None


def answer_seed(request_id: str) -> int:
    """The seed of a request that gives none."""
    return xxhash.xxh3_64_intdigest(request_id.encode())


def answer_tokens(seed: int, start: int, count: int, vocab_size: int) -> TokenArray:
    """uint32[count]: tokens `start`... of the answer that a seed gives."""
    words = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    words *= _GOLDEN
    words ^= np.uint64(seed)
    words ^= words >> _SHIFT
    words *= _MIX
    words ^= words >> _SHIFT
    words %= np.uint64(vocab_size)
    return words.astype(np.uint32)


class Sequence:
    """One request inside an engine.

    While it decodes, its progress is the difference to its engine's step count
    (see DecodeSet), so a step need not touch it.
    """

    __slots__ = (
        "_answer", "_answer_seed", "_chain", "_own_keys", "_prompt", "_vocab_size", "aborted",
        "admitted_at_s", "arrived_at_s", "block_size_tokens", "blocks", "cached_tokens",
        "decoding", "end_tokens", "finished_at_s", "first_token_at_s", "keys", "max_tokens",
        "offset_tokens", "order", "preemptions", "prompt_tokens", "request_id",
        "stored_blocks", "total_tokens", "transferred",
    )  # fmt: skip

    def __init__(
        self,
        request: EmulatedRequest,
        *,
        order: int,
        block_size_tokens: int,
        max_model_len: int,
        vocab_size: int,
        hashed: bool,
    ) -> None:
        """`hashed` is false when the engine keeps no prefix cache: then no keys are made."""
        prompt = np.ascontiguousarray(request.token_ids, dtype=np.uint32)
        self._prompt = array("I", prompt.tobytes())
        self._answer = array("I")
        if request.answer is not None:
            self._answer.frombytes(np.ascontiguousarray(request.answer, np.uint32).tobytes())
        seed = request.answer_seed
        self._answer_seed = answer_seed(request.request_id) if seed is None else seed
        self._vocab_size = vocab_size
        self.request_id = request.request_id
        self.arrived_at_s = request.arrived_at_s
        self.max_tokens = request.max_tokens
        self.prompt_tokens = len(prompt)
        self.block_size_tokens = block_size_tokens
        # The answer also ends where the context does.
        self.end_tokens = min(self.prompt_tokens + request.max_tokens, max_model_len)
        self.order = order  # who goes first, and last in preemption
        self.blocks: list[int] = []
        self.stored_blocks = 0  # leading blocks that the prefix cache knows
        self.keys: list[int] = []
        self._chain, self._own_keys = request.chain, request.own_keys
        if hashed and request.block_keys is not None:
            self.keys += request.block_keys
        elif hashed:
            self.keys = self._chain(seed_key(block_size_tokens), prompt, block_size_tokens)
        self.decoding: DecodeSet | None = None
        self.offset_tokens = 0  # computed tokens; minus the step count while decoding
        self.total_tokens = self.prompt_tokens  # known when it last (re)started its prefill
        self.cached_tokens = 0  # of the prompt, found in the prefix cache when first admitted
        self.transferred = request.transferred  # until its blocks are lost
        self.preemptions = 0
        self.admitted_at_s: float | None = None  # first scheduled
        self.first_token_at_s: float | None = None
        self.finished_at_s: float | None = None  # last token out, or aborted
        self.aborted = False

    @property
    def computed_tokens(self) -> int:
        """Tokens whose keys and values are in the KV cache."""
        group = self.decoding
        return self.offset_tokens if group is None else self.offset_tokens + group.steps

    @property
    def num_tokens(self) -> int:
        """Prompt and answer so far; a decoding sequence has one token yet to compute."""
        return self.total_tokens if self.decoding is None else self.computed_tokens + 1

    @property
    def output_tokens(self) -> int:
        """Tokens of the answer so far."""
        return self.num_tokens - self.prompt_tokens

    def tokens(self, start: int, stop: int) -> "array[int]":
        """Token ids [start, stop) of prompt and answer; the answer may be ahead of its time."""
        split = self.prompt_tokens
        if stop <= split:
            return self._prompt[start:stop]
        if stop - split > len(self._answer):
            self._look_ahead(stop - split)
        if start >= split:
            return self._answer[start - split : stop - split]
        return self._prompt[start:split] + self._answer[: stop - split]

    def answer(self, start: int, stop: int) -> "array[int]":
        """Token ids [start, stop) of the answer."""
        return self.tokens(self.prompt_tokens + start, self.prompt_tokens + stop)

    def extend_keys(self, count: int) -> None:
        """Make at least `count` keys, all of which must lie in prompt and answer."""
        size, done = self.block_size_tokens, len(self.keys)
        if self._own_keys is not None:
            self.keys += self._own_keys(self.end_tokens // size - done)
            return
        wanted = min(max(count * size, done * size + _AHEAD_TOKENS), self.end_tokens) // size
        tokens = np.frombuffer(self.tokens(done * size, wanted * size), dtype=np.uint32)
        parent = self.keys[-1] if done else seed_key(size)
        self.keys += self._chain(parent, tokens, size)

    def _look_ahead(self, count: int) -> None:
        done = len(self._answer)
        more = max(count - done, _AHEAD_TOKENS)
        fresh = answer_tokens(self._answer_seed, done, more, self._vocab_size)
        self._answer.frombytes(fresh.tobytes())

    def __repr__(self) -> str:
        return (
            f"<Sequence {self.request_id}: {self.prompt_tokens}+{self.output_tokens} tokens, "
            f"{self.computed_tokens} computed, {len(self.blocks)} blocks>"
        )
