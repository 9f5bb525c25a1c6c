"""Text to token ids, encoding only the segments not seen before.

In       text.
Out      token ids, uint32 [tokens], equal to those of the whole text.
Cost     about 2 us per 1,000 characters seen before, 1 ms per 1,000 new tokens.
Errors   ValueError for text that cannot be encoded (a lone surrogate, a character
         that the vocabulary lacks).

`boundaries` says where a text may be cut; here the cutting is also tried on
samples once, and not done at all when one of them differs.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import tokenizers

from lodestar_router.tokens.boundaries import chunk_cut, token_cuts
from lodestar_router.tokens.cache import Ids, Key, SegmentCache
from lodestar_router.tokens.request import TokenIds

# Characters. Long enough that a cached chunk saves more than its lookup costs,
# short enough that a long prompt with a new end encodes little twice.
CHUNK_CHARS = 1024

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
    """What is known of a text's ids; `ids` is all of them, if nothing has to be encoded."""

    ids: Ids | None = None
    keys: Sequence[Key] = ()
    found: list[Ids | None] = field(default_factory=list)  # of each key
    new: list[Key] = field(default_factory=list)  # to be encoded, each once
    new_chars: int = 0


class Segmenter:
    """Encodes text by segments that are cached and provably independent."""

    def __init__(self, backend: tokenizers.Tokenizer, cache: SegmentCache) -> None:
        self._backend = backend
        self._cache = cache
        self._cuts = token_cuts(backend)
        self._chunk_cut = chunk_cut(backend)
        self._pin_separators()
        if not self._agrees_on_samples():
            self._cuts = self._chunk_cut = None
        self._pin_separators()

    def _pin_separators(self) -> None:
        ids = {} if self._cuts is None else self._cuts.ids
        self._cache.clear({text: _bytes_of([id_]) for text, id_ in ids.items()})

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
        keys = self._keys(text)
        found = self._cache.get_all(keys)
        with suppress(TypeError):  # an ids that is None: the rare case costs the search for it
            return Plan(b"".join(found))  # type: ignore[arg-type]
        pairs = zip(keys, found, strict=True)
        new = list(dict.fromkeys(key for key, ids in pairs if ids is None))
        return Plan(None, keys, found, new, sum(len(_text_of(key)) for key in new))

    def finish(self, plan: Plan) -> TokenIds:
        """The ids of the plan's text; encodes what is new and caches it."""
        ids = plan.ids
        if ids is None:
            new = self._encode(plan.new)
            pairs = zip(plan.keys, plan.found, strict=True)
            ids = b"".join([new[key] if ids is None else ids for key, ids in pairs])
        return np.frombuffer(ids, dtype=np.uint32)

    def encode(self, text: str) -> TokenIds:
        """The ids of `text`, without the tokens put around a whole sequence."""
        return self.finish(self.plan(text))

    def _keys(self, text: str) -> list[Key]:
        """The text's segments and separators, in order."""
        if self._cuts is None:
            return self._cut_long([(text,)])
        first, *rest = self._cuts.pattern.split(text)  # token, text, token, text, ...
        if not self._cuts.all_separate:
            first, rest = self._joined(first, rest)
        keys: list[Key] = [(first,), *rest] if first or not rest else rest
        if self._chunk_cut is not None and max(map(len, rest), default=0) > CHUNK_CHARS:
            return self._cut_long(keys)
        return self._cut_long(keys) if len(first) > CHUNK_CHARS else keys

    def _joined(self, first: str, rest: list[str]) -> tuple[str, list[str]]:
        """Tokens that do not separate become part of the texts beside them."""
        assert self._cuts is not None
        joined = [first]
        for token, after in zip(rest[::2], rest[1::2], strict=True):
            if token in self._cuts.ids:
                joined += (token, after)
            else:
                joined[-1] += token + after
        return joined[0], joined[1:]

    def _cut_long(self, keys: Iterable[Key]) -> list[Key]:
        """Long segments cut into chunks, where that is safe."""
        cut, result = self._chunk_cut, []
        for key in keys:
            text = _text_of(key)
            start = 0
            while cut is not None and len(text) - start > CHUNK_CHARS:
                found = cut.search(text, start + CHUNK_CHARS - 1)
                if found is None:
                    break
                chunk = text[start : found.end()]
                result.append(chunk if start or isinstance(key, str) else (chunk,))
                start = found.end()
            result.append(text[start:] if start else key)
        return result

    def _encode(self, new: Sequence[Key]) -> dict[Key, Ids]:
        # Where a segment stands matters to some pre-tokenizers: one inside the
        # text is encoded behind an added token, whose id is dropped again.
        guard = "" if self._cuts is None else self._cuts.guard
        inside = 1 if guard else 0
        texts = [guard + key if isinstance(key, str) else key[0] for key in new]
        # The batch call releases the GIL, the single one does not (0.23).
        try:
            encoded = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"text cannot be tokenized: {error}") from error
        result: dict[Key, Ids] = {}
        for key, encoding in zip(new, encoded, strict=True):
            result[key] = _bytes_of(encoding.ids[inside:] if isinstance(key, str) else encoding.ids)
            self._cache.put(key, result[key])
        return result

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
        tokens = [] if self._cuts is None else sorted(self._cuts.ids)
        for token in [*tokens[:16], *tokens[-16:]]:
            yield token.join(_SAMPLES) + token + token
            yield token + " " + token + "\n" + token


def _text_of(key: Key) -> str:
    return key if isinstance(key, str) else key[0]


def _bytes_of(ids: Sequence[int]) -> Ids:
    return np.array(ids, dtype=np.uint32).tobytes()
