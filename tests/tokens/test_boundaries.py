"""Which tokenizers may be cut where."""

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from lodestar_router.tokens.boundaries import chunk_cut, token_cuts
from tests.tokens import builders


def test_only_tokens_that_look_nowhere_else_separate() -> None:
    cuts = token_cuts(builders.with_odd_tokens(builders.byte_level()))

    assert cuts is not None
    assert {"<|im_end|>", "<|im_start|>!", "<a><b>"} <= cuts.ids.keys()
    assert cuts.ids.keys().isdisjoint({"<mask>", "<tail>", "word", "\n\n", " spaced ", "NORMAL"})
    # These end in a word character, and another token wants none beside it.
    assert cuts.ids.keys().isdisjoint({"edge", "<a"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("<a><b>", ["<a><b>"], id="longest-wins"),
        pytest.param("<a><a><b>", ["<a", "<a><b>"], id="leftmost-wins"),
        pytest.param("<|im_start|>! x", ["<|im_start|>!"], id="prefix-of-another"),
        pytest.param("\n\n\n", ["\n\n"], id="tokens-that-do-not-separate-are-found-too"),
        pytest.param("NORMAL", [], id="normalized-tokens-are-not"),
    ],
)
def test_added_tokens_are_found_leftmost_and_longest(text: str, found: list[str]) -> None:
    cuts = token_cuts(builders.with_odd_tokens(builders.byte_level()))

    assert cuts is not None
    assert cuts.pattern.findall(text) == found


def test_the_guard_is_no_beginning_of_another_token() -> None:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.add_special_tokens(["<a", "<a>", "<b>"])

    cuts = token_cuts(backend)

    assert cuts is not None
    assert cuts.guard in ("<a>", "<b>")


def test_a_tokenizer_that_takes_special_tokens_for_text_is_not_cut() -> None:
    backend = builders.byte_level()
    backend.encode_special_tokens = True

    assert token_cuts(backend) is None


def test_a_tokenizer_without_added_tokens_is_not_cut() -> None:
    assert token_cuts(tokenizers.Tokenizer(models.BPE())) is None


def split(pattern: str, behavior: str = "isolated") -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior=behavior)
    return backend


def test_known_patterns_may_be_cut_before_a_space() -> None:
    for pattern in (None, builders.LLAMA3_PATTERN, builders.QWEN_PATTERN):
        assert chunk_cut(builders.byte_level(pattern)) is not None


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param(split(r"\w+ \w+|\s+"), id="pattern-that-spans-spaces"),
        pytest.param(split(r"(?<=x) y|\s+"), id="look-behind"),
        pytest.param(split(r"\p{N}"), id="pattern-that-ignores-spaces"),
        pytest.param(split(builders.LLAMA3_PATTERN, "merged_with_next"), id="merging"),
        pytest.param(tokenizers.Tokenizer(models.BPE()), id="no-pre-tokenizer"),
        pytest.param(builders.sentencepiece_like(), id="metaspace"),
        pytest.param(builders.llama2_like(), id="prepending-normalizer"),
        pytest.param(builders.with_odd_tokens(builders.byte_level()), id="tokens-in-plain-text"),
    ],
)
def test_others_may_not(backend: tokenizers.Tokenizer) -> None:
    assert chunk_cut(backend) is None


def test_a_normalizer_other_than_nfc_is_not_trusted() -> None:
    backend = builders.byte_level()
    backend.normalizer = normalizers.NFKC()

    assert chunk_cut(backend) is None


def test_dropout_is_random_and_not_cut() -> None:
    backend = builders.byte_level()
    backend.model = models.BPE(dropout=0.1)

    assert token_cuts(backend) is None
    assert chunk_cut(backend) is None
