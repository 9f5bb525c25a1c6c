"""The tokenizer of emulated engines that are given none, made from nothing.

    word     = consonant vowel consonant vowel
    one word is one token, with a space before it or without

so that generated text, sent back in the next turn of a chat, has the same token
ids again. Other text is tokenized too, English at about two letters per token.

In       a directory to keep it in (a cache directory of the user by default).
Out      tokenizer.json and what else of a model repository concerns tokenizers: the
         router, vLLM's tools and transformers load it.
Cost     about 0.1 s and 1 MB on disk, once per machine.
Errors   ConfigError when nothing can be written anywhere.

The content is the same on every machine and with every release of its libraries:
it is built, not trained.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import xxhash

from lodestar_router.errors import ConfigError

_BEGIN, _END, _START, _SEPARATOR = "<|begin|>", "<|end|>", "<|start|>", "<|sep|>"
_SPECIAL = (_BEGIN, _END, _START, _SEPARATOR)
_SYLLABLES = tuple(c + v for c, v in product("bdfgklmnprstvz", "aeiou"))

_CHAT_TEMPLATE = f"""\
{{{{- bos_token }}}}
{{%- if tools %}}{_START}tools{_SEPARATOR}{{{{ tools | tojson }}}}{_END}{{% endif %}}
{{%- for message in messages %}}
{{{{- '{_START}' + message.role + '{_SEPARATOR}' }}}}
{{%- if message.content %}}{{{{ message.content }}}}{{% endif %}}
{{%- for call in message.tool_calls or [] %}}{{{{ call.function | tojson }}}}{{% endfor %}}
{{{{- '{_END}' if not (loop.last and continue_final_message) }}}}
{{%- endfor %}}
{{%- if add_generation_prompt %}}{{{{ '{_START}assistant{_SEPARATOR}' }}}}{{% endif %}}
"""

# Tools ask for a model beside the tokenizer; this names a kind they know.
_MODEL = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}

_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": _BEGIN,
    "eos_token": _END,
    "clean_up_tokenization_spaces": False,
    "model_max_length": 1_000_000,
}


def builtin_tokenizer() -> Path:
    """The directory, written if it is not there yet."""
    files = _files()
    name = f"emulated-tokenizer-{xxhash.xxh3_64_hexdigest(repr(files).encode())}"
    failure: OSError | None = None
    for parent in (Path("~/.cache/lodestar-router").expanduser(), _temporary()):
        try:
            return _written(parent / name, files)
        except (OSError, RuntimeError) as error:
            failure = error if isinstance(error, OSError) else failure
    raise ConfigError(f"the built-in tokenizer cannot be written: {failure}")


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"lodestar-router-{os.getuid()}"


def _written(directory: Path, files: dict[str, str]) -> Path:
    """`directory` holding `files`; it appears whole or not at all."""
    if _holds(directory, files):
        return directory
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=directory.parent))
    try:
        for name, text in files.items():
            (draft / name).write_text(text, encoding="utf-8")
        draft.rename(directory)
    except OSError:
        # Another process may have been first; what counts is that it is there.
        if not _holds(directory, files):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return directory


def _holds(directory: Path, files: dict[str, str]) -> bool:
    try:
        return all(
            (directory / name).read_text(encoding="utf-8") == text for name, text in files.items()
        )
    except (OSError, UnicodeDecodeError):
        return False


def _files() -> dict[str, str]:
    return {
        "tokenizer.json": json.dumps(_tokenizer(), ensure_ascii=False, separators=(",", ":")),
        "tokenizer_config.json": json.dumps(_CONFIG, indent=2),
        "chat_template.jinja": _CHAT_TEMPLATE,
        "config.json": json.dumps(_MODEL, indent=2),
    }


def _tokenizer() -> dict[str, object]:
    """tokenizer.json: byte-level BPE whose merges build syllables, then words."""
    merges = list(_merges())
    vocabulary: dict[str, int] = {}
    for token in (*_SPECIAL, *_byte_letters(), *(left + right for left, right in merges)):
        vocabulary.setdefault(token, len(vocabulary))
    pieces = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": vocabulary[text], "content": text, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": True,
            }
            for text in _SPECIAL
        ],
        "normalizer": None,
        "pre_tokenizer": {**pieces, "use_regex": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": _BEGIN, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": _BEGIN, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {
                _BEGIN: {"id": _BEGIN, "ids": [vocabulary[_BEGIN]], "tokens": [_BEGIN]}
            },
        },
        "decoder": {**pieces, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False, "vocab": vocabulary, "merges": merges,
        },
    }  # fmt: skip


def _merges() -> Iterator[tuple[str, str]]:
    """In the order of their rank: what stands first is merged first."""
    space = _byte_letters()[ord(" ")]
    yield from ((syllable[0], syllable[1]) for syllable in _SYLLABLES)
    yield from ((space, syllable) for syllable in _SYLLABLES)
    for first, second in product(_SYLLABLES, repeat=2):
        yield space + first, second
        yield first, second


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in byte-level vocabularies.

    Printable ones stand for themselves, the others for the letters from 256 on.
    Source: the byte-level tokenizer of GPT-2, which all later ones follow.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
