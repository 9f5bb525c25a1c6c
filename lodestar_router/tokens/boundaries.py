"""Where a text may be cut without changing its token ids.

In       a loaded tokenizer's added tokens, normalizer, pre-tokenizer and model.
Out      token_cuts: the added tokens that separate independent segments;
         chunk_cut: a pattern whose matches end one character before a place
         where plain text may be cut, or None.
Cost     once per tokenizer, milliseconds.
Errors   none: what is not known to be safe is not cut.
Source   tokenizers 0.23 (Rust): added_vocabulary.rs `find_matches` and
         `extract_and_normalize`, pre_tokenizers/split.rs.

Why an added token separates. The tokenizer first finds the added tokens that are
not normalized in the raw text, leftmost and longest first; normalizer,
pre-tokenizer and model then see each remaining piece alone. So a piece may be
encoded alone if the same matches are found in it. Matches go on from the end of
the last one, hence a cut at a match changes no other, unless the token beside
the cut looks across it: one that swallows spaces (stopped by a cut token that
neither begins nor ends with a space) or one that wants no word character beside
it. Position matters to some pre-tokenizers (a space is put before the first
piece only), so a segment inside the text is encoded behind an added token.

Why plain text may be cut before a space. If no alternative of the
pre-tokenizer's pattern can match a non-space followed by a space, a match ends
there whatever surrounds it; without look-behind the right part is then matched
as if it began there; and the only look-ahead, `\\s+(?!\\S)`, concerns runs of
spaces, which the cut does not divide. `_SAFE_ALTERNATIVES` are the alternatives
of the GPT-2, Llama 3, Qwen and o200k patterns, each read with that in mind.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import tokenizers

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_LETTERS = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CAPITALS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_SAFE_ALTERNATIVES = frozenset(
    [
        *_CONTRACTIONS.split("|"),
        f"(?i:{_CONTRACTIONS})",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_LETTERS}+",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}*{_LETTERS}+(?i:{_CONTRACTIONS})?",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_LETTERS}*",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_CAPITALS}+{_LETTERS}*(?i:{_CONTRACTIONS})?",
        r" ?\p{L}+",
        r" ?\p{N}+",
        r"\p{N}",
        r"\p{N}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)

# A letter or digit before a space: narrower than the proof asks for, so that no
# difference between the Unicode tables of two libraries can matter.
_CHUNK_CUT = re.compile(r"[^\W_](?= )")


@dataclass(frozen=True, slots=True)
class TokenCuts:
    """How to find added tokens, and which of them separate segments."""

    pattern: re.Pattern[str]  # all added tokens matched in raw text, one group
    ids: dict[str, int]  # those that separate -> token id
    guard: str  # one of them that no longer token starts with
    all_separate: bool  # no token that the pattern matches is missing from `ids`


def token_cuts(backend: tokenizers.Tokenizer) -> TokenCuts | None:
    """The cuts at added tokens; None when there are none that are safe."""
    if backend.encode_special_tokens or getattr(backend.model, "dropout", None):
        return None
    added = backend.get_added_tokens_decoder()
    raw = {token.content: (id_, token) for id_, token in added.items() if not token.normalized}
    no_word_rule = not any(token.single_word for _, token in raw.values())
    ids = {
        content: id_
        for content, (id_, token) in raw.items()
        if not (token.lstrip or token.rstrip or token.single_word)
        and not (content[:1].isspace() or content[-1:].isspace())
        and (no_word_rule or not (_is_word(content[:1]) or _is_word(content[-1:])))
    }
    guards = [
        content
        for content in ids
        if not any(other != content and other.startswith(content) for other in raw)
    ]
    if not guards:
        return None
    return TokenCuts(
        pattern=re.compile(f"({_longest_of(raw)})"),
        ids=ids,
        guard=guards[0],
        all_separate=len(ids) == len(raw),
    )


def chunk_cut(backend: tokenizers.Tokenizer) -> re.Pattern[str] | None:
    """A pattern after whose match plain text may be cut; None when not proved safe."""
    added = backend.get_added_tokens_decoder().values()
    plain = not any(
        token.normalized
        or token.lstrip
        or token.rstrip
        or token.single_word
        or " " in token.content
        for token in added
    )
    # Composition never joins a space with what stands before it.
    normalizer = _state(backend.normalizer)
    known_normalizer = normalizer is None or normalizer["type"] == "NFC"
    whole_words = isinstance(backend.model, tokenizers.models.BPE) and not backend.model.dropout
    if (
        plain
        and known_normalizer
        and whole_words
        and _cuts_before_space(_state(backend.pre_tokenizer))
    ):
        return _CHUNK_CUT
    return None


def _cuts_before_space(pre_tokenizer: dict[str, Any] | None) -> bool:
    if pre_tokenizer is None:
        return False
    nested = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return all(map(_is_safe, nested)) and any(map(_splits_at_spaces, nested))


def _is_safe(step: dict[str, Any]) -> bool:
    if step["type"] in ("ByteLevel", "Digits"):
        return True
    if step["type"] != "Split" or "Regex" not in step["pattern"]:
        return False
    kept = step["behavior"] == "Isolated" or (step["behavior"] == "Removed" and step["invert"])
    return kept and _SAFE_ALTERNATIVES.issuperset(_alternatives(step["pattern"]["Regex"]))


def _splits_at_spaces(step: dict[str, Any]) -> bool:
    if step["type"] == "ByteLevel":
        return bool(step["use_regex"])
    return step["type"] == "Split" and r"\s+" in _alternatives(step["pattern"]["Regex"])


def _alternatives(pattern: str) -> list[str]:
    """The pattern's outermost alternatives."""
    found, depth, start = [], 0, 0
    for at, character in enumerate(pattern):
        depth += (character in "([") - (character in ")]")
        if character == "|" and depth == 0:
            found.append(pattern[start:at])
            start = at + 1
    return [*found, pattern[start:]]


def _state(part: Any) -> dict[str, Any] | None:
    """A tokenizer part's JSON description; None when there is no such part."""
    if part is None:
        return None
    state: dict[str, Any] = json.loads(part.__getstate__())
    return state


def _longest_of(words: Iterable[str]) -> str:
    """A pattern that matches the longest of `words`, in time independent of their number."""
    tree: dict[str, Any] = {}
    for word in filter(None, words):
        node = tree
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}
    return _pattern_of(tree)


def _pattern_of(node: dict[str, Any]) -> str:
    prefix = ""
    while len(node) == 1 and "" not in node:
        [(character, node)] = node.items()
        prefix += re.escape(character)
    branches = [re.escape(key) + _pattern_of(child) for key, child in node.items() if key]
    if not branches:
        return prefix
    return f"{prefix}(?:{'|'.join(branches)}){'?' if '' in node else ''}"


def _is_word(character: str) -> bool:
    return re.match(r"\w", character) is not None
