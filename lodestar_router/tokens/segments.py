"""Text to token ids, encoding only the segments not seen before.

In       text.
Out      token ids, uint32 [tokens], equal to those of the whole text.
Cost     about 5 us per 1,000 characters seen before, 1 ms per 1,000 new tokens.
Errors   ValueError for text that cannot be encoded (a lone surrogate, a character
         that the vocabulary lacks).

`boundaries` says where a text may be cut; here the cutting is also tried on
samples once, and not done at all when one of them differs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import tokenizers

from lodestar_router.tokens.boundaries import chunk_cut, token_cuts
from lodestar_router.tokens.cache import Key, SegmentCache
from lodestar_router.tokens.request import TokenIds

# Characters. Long enough that a cached chunk saves more than its lookup costs,
# short enough that a long prompt with a new end encodes little twice.
CHUNK_CHARS = 1024

# A sequence without tokens.
_NOTHING: TokenIds = np.zeros(0, dtype=np.uint32)

# Texts around which a wrong cut would show: spaces, line ends, marks, scripts.
_SAMPLES = (
    "",
    " ",
    "word",
    " two words ",
    "\n\nlines\r\n\r\n  and\ttabs \n",
    "It's  100%, isn't it? (12345678) [x] {\"a\": 1}",
    "Größe naïve e\u0301clair 東京都 こんにちは مرحبا 👍🏽\u200d end",
    "\u2581under \u2581 score▁",
    "_a_b-c.d/e:f",
)


@dataclass(slots=True)
class Plan:
    """A text's parts in order; those not cached are keys until they are encoded."""

    parts: list[TokenIds | Key] = field(default_factory=list)
    new: dict[Key, TokenIds | None] = field(default_factory=dict)
    new_chars: int = 0  # to be encoded; repeated segments count once


class Segmenter:
    """Encodes text by segments that are cached and provably independent."""

    def __init__(self, backend: tokenizers.Tokenizer, cache: SegmentCache) -> None:
        self._backend = backend
        self._cache = cache
        self._cuts = token_cuts(backend)
        self._chunk_cut = chunk_cut(backend)
        self._separators: dict[str, TokenIds] = {}
        if self._cuts is not None:
            self._separators = {
                text: np.array([id_], dtype=np.uint32) for text, id_ in self._cuts.ids.items()
            }
        if not self._agrees_on_samples():
            self._cuts = self._chunk_cut = None
        cache.clear()

    @property
    def cuts_at_tokens(self) -> bool:
        """Whether added tokens separate segments."""
        return self._cuts is not None

    @property
    def cuts_plain_text(self) -> bool:
        """Whether long text without added tokens is cut into chunks."""
        return self._chunk_cut is not None

    def plan(self, text: str) -> Plan:
        """What of `text` is cached and what has to be encoded."""
        plan = Plan()
        for piece in self._pieces(text):
            if not isinstance(piece, tuple):
                plan.parts.append(piece)
                continue
            ids = self._cache.get(piece)
            plan.parts.append(piece if ids is None else ids)
            if ids is None and piece not in plan.new:
                plan.new[piece] = None
                plan.new_chars += len(piece[1])
        return plan

    def finish(self, plan: Plan) -> TokenIds:
        """The ids of the plan's text; encodes what is new and caches it."""
        if plan.new:
            self._encode_new(plan.new)
        parts = [self._ids_of(part, plan) for part in plan.parts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def encode(self, text: str) -> TokenIds:
        """The ids of `text`, without the tokens put around a whole sequence."""
        return self.finish(self.plan(text))

    def _pieces(self, text: str) -> Iterator[Key | TokenIds]:
        if self._cuts is None:
            yield from self._chunks(text, first=True)
            return
        first = True
        pending, *rest = self._cuts.pattern.split(text)
        for token, after in zip(rest[::2], rest[1::2], strict=True):
            separator = self._separators.get(token)
            if separator is None:
                pending += token + after
                continue
            if pending:
                yield from self._chunks(pending, first=first)
            yield separator
            first = False
            pending = after
        if pending or first:
            yield from self._chunks(pending, first=first)

    def _chunks(self, text: str, *, first: bool) -> Iterator[Key]:
        start = 0
        if self._chunk_cut is not None:
            while len(text) - start > CHUNK_CHARS:
                found = self._chunk_cut.search(text, start + CHUNK_CHARS - 1)
                if found is None:
                    break
                yield first and not start, text[start : found.end()]
                start = found.end()
        yield first and not start, text[start:] if start else text

    def _encode_new(self, new: dict[Key, TokenIds | None]) -> None:
        # Where a segment stands matters to some pre-tokenizers: one inside the
        # text is encoded behind an added token, whose id is dropped again.
        guard = "" if self._cuts is None else self._cuts.guard
        inside = 1 if guard else 0
        texts = [text if first else guard + text for first, text in new]
        # The batch call releases the GIL, the single one does not (0.23).
        try:
            encoded = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"text cannot be tokenized: {error}") from error
        for key, encoding in zip(list(new), encoded, strict=True):
            ids = np.array(encoding.ids, dtype=np.uint32)
            ids = ids if key[0] else ids[inside:].copy()
            new[key] = ids
            self._cache.put(key, ids)

    def _ids_of(self, part: TokenIds | Key, plan: Plan) -> TokenIds:
        if not isinstance(part, tuple):
            return part
        ids = plan.new[part]
        return _NOTHING if ids is None else ids

    def _agrees_on_samples(self) -> bool:
        try:
            return all(map(self._agrees, self._samples()))
        except ValueError:
            return False

    def _agrees(self, text: str) -> bool:
        by_segments = self.encode(text).tolist()
        whole = self._backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return bool(by_segments == whole)

    def _samples(self) -> Iterator[str]:
        yield from _SAMPLES
        yield "".join(_SAMPLES) * (2 * CHUNK_CHARS // len("".join(_SAMPLES)) + 1)
        # The first and the last tokens: the oldest specials and the latest additions.
        tokens = sorted(self._separators)
        for token in [*tokens[:16], *tokens[-16:]]:
            yield token.join(_SAMPLES) + token + token
            yield token + " " + token + "\n" + token
