"""Encoding by segments equals encoding whole, and costs only what is new."""

from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
import tokenizers
from tokenizers import models

from lodestar_router.tokens.cache import SegmentCache
from lodestar_router.tokens.segments import CHUNK_CHARS, Segmenter
from tests.tokens import builders

# Pieces whose neighbourhood matters to one tokenizer or another.
ATOMS = [
    " ", "  ", "\n", "\n\n", "\r\n", "\t", "word", "words", "sword", "edge", "hedge", "NORMAL",
    "Solo", " Solo x", " spaced ", "spaced", "<mask>", "<tail>", "<a", "<a><b>", "<|im_start|>",
    "<|im_start|>!", "<|im_end|>", "<|bos|>", "<", "|>", "e", "\u0301", "é", "東京", "👍🏽",
    "\u200d", "\u00a0", "\u3000", "123", "4567890", " it's", "IT'S", "_a", "x1 ", "\u2581",
    "def f(x):", " return", "!?", "/", "\u2028", "م", " a longer run of plain words" * 9,
]  # fmt: skip


BACKENDS = {
    "gpt2": builders.byte_level(),
    "gpt2-odd": builders.with_odd_tokens(builders.byte_level()),
    "llama3": builders.byte_level(builders.LLAMA3_PATTERN),
    "qwen": builders.byte_level(builders.QWEN_PATTERN),
    "metaspace-first": builders.sentencepiece_like(),
    "metaspace-odd": builders.with_odd_tokens(builders.sentencepiece_like()),
    "metaspace-always": builders.sentencepiece_like("always"),
    "metaspace-never": builders.sentencepiece_like("never"),
    "llama2": builders.llama2_like(),
    "llama2-odd": builders.with_odd_tokens(builders.llama2_like()),
}


class TellsLength:
    """Looks like a tokenizer that may be cut, but ends each text with its length."""

    def __init__(self) -> None:
        self._real = builders.byte_level()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> list[Any]:
        encoded = self._real.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        return [
            SimpleNamespace(ids=[*encoding.ids, len(text)])
            for encoding, text in zip(encoded, texts, strict=True)
        ]


def whole(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("name", BACKENDS)
def test_equals_encoding_the_whole_text(name: str) -> None:
    rng = Random(7)
    backend = BACKENDS[name]
    segmenter = Segmenter(backend, SegmentCache(1 << 20))
    assert segmenter.cuts_at_tokens

    for _ in range(250):
        text = "".join(rng.choices(ATOMS, k=rng.randrange(40)))

        assert segmenter.encode(text).tolist() == whole(backend, text)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen"])
def test_equals_encoding_the_whole_of_a_long_plain_text(name: str) -> None:
    rng = Random(8)
    backend = BACKENDS[name]
    segmenter = Segmenter(backend, SegmentCache(1 << 20))
    plain = [atom for atom in ATOMS if "<" not in atom]
    assert segmenter.cuts_plain_text

    for _ in range(8):
        text = "".join(rng.choices(plain, k=400))

        assert segmenter.encode(text).tolist() == whole(backend, text)


def test_a_longer_chat_encodes_only_its_new_text() -> None:
    segmenter = Segmenter(BACKENDS["gpt2"], SegmentCache(1 << 20))
    turn = "<|im_start|>user\n" + "word " * 300 + "<|im_end|>\n"
    segmenter.encode(turn * 20)
    new = "<|im_start|>assistant\nYes.<|im_end|>"

    plan = segmenter.plan(turn * 20 + new)

    assert plan.new_chars == len("assistant\nYes.")


def test_a_longer_plain_text_encodes_its_last_chunk_again_and_no_more() -> None:
    segmenter = Segmenter(BACKENDS["llama3"], SegmentCache(1 << 20))
    text = "some plain words of a prompt, " * 1000
    segmenter.encode(text)

    plan = segmenter.plan(text + "and its end")

    assert plan.new_chars < CHUNK_CHARS + 100


def test_a_text_seen_before_encodes_nothing() -> None:
    segmenter = Segmenter(BACKENDS["llama2"], SegmentCache(1 << 20))
    segmenter.encode("seen before")

    assert segmenter.plan("seen before").new_chars == 0


def test_repeated_segments_are_encoded_once() -> None:
    segmenter = Segmenter(BACKENDS["gpt2"], SegmentCache(1 << 20))

    plan = segmenter.plan("<|im_end|>abc" * 50)

    assert plan.new_chars == len("abc")
    assert segmenter.finish(plan).tolist() == whole(BACKENDS["gpt2"], "<|im_end|>abc" * 50)


def test_a_cache_without_room_changes_nothing_but_the_cost() -> None:
    segmenter = Segmenter(BACKENDS["gpt2"], SegmentCache(0))
    text = "a<|im_end|>b" * 3

    assert segmenter.encode(text).tolist() == whole(BACKENDS["gpt2"], text)


def test_a_tokenizer_that_fails_the_samples_is_not_cut() -> None:
    segmenter = Segmenter(cast("tokenizers.Tokenizer", TellsLength()), SegmentCache(1 << 20))

    assert not segmenter.cuts_at_tokens
    assert not segmenter.cuts_plain_text
    assert segmenter.encode("a<|im_end|>b").tolist()[-1] == len("a<|im_end|>b")


def test_text_that_the_vocabulary_lacks_is_a_value_error() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"known": 0}, unk_token="<unk>"))
    segmenter = Segmenter(backend, SegmentCache(1 << 20))

    with pytest.raises(ValueError, match="cannot be tokenized"):
        segmenter.encode("unknown")
