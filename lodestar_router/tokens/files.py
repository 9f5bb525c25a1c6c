"""Reads a tokenizer's files, from a directory or the Hugging Face Hub.

In       a directory, or a Hub id such as "org/model".
Out      TokenizerFiles: the loaded tokenizer, its chat templates, its special tokens.
Cost     0.1-1 s, once per model; the Hub is asked for a handful of small files.
Errors   ConfigError, one line that names the directory or id.
Source   transformers v5.19.0: tokenization_utils_base.py `_from_pretrained`,
         tokenization_utils_tokenizers.py `TokenizersBackend.__init__`.

Tokenizer classes that rebuild themselves in Python code are taken as their
tokenizer.json says; `TokenService.verify` finds those that differ.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from lodestar_router.errors import ConfigError

TOKENIZER_FILE = "tokenizer.json"
_CONFIG_FILE = "tokenizer_config.json"
_SPECIAL_TOKENS_FILE = "special_tokens_map.json"
_TEMPLATE_FILE = "chat_template.jinja"
_TEMPLATE_DIR = "additional_chat_templates"

_NAMED_TOKENS = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFiles:
    """What a model repository says about its tokenizer."""

    name: str
    backend: tokenizers.Tokenizer
    templates: Mapping[str, str]  # name -> source; "default" is the usual one
    special_tokens: Mapping[str, str]  # "bos_token" -> text, as templates see them


def tokenizer_dir_of(model_card: Mapping[str, Any]) -> str | None:
    """The local directory a /v1/models entry names, if it holds a tokenizer."""
    root = model_card.get("root")
    if not isinstance(root, str) or not root:
        return None
    path = Path(root)
    # A relative root would be looked for beside the router, not beside the engine.
    return root if path.is_absolute() and (path / TOKENIZER_FILE).is_file() else None


def read_files(path_or_id: str) -> TokenizerFiles:
    """Read and load; a path that exists is never looked for on the Hub."""
    path = Path(path_or_id)
    folder = path.parent if path.is_file() and path.name == TOKENIZER_FILE else path
    if not folder.is_dir():
        folder = _fetch(path_or_id)
    if not (folder / TOKENIZER_FILE).is_file():
        raise ConfigError(f"tokenizer {path_or_id}: no {TOKENIZER_FILE} in it")
    backend = _load_backend(folder / TOKENIZER_FILE)
    try:
        config = _read_json(folder / _CONFIG_FILE)
        if "added_tokens_decoder" not in config:
            config |= _read_json(folder / _SPECIAL_TOKENS_FILE)
        special_tokens = _special_tokens(config)
        _add_missing_tokens(backend, config, special_tokens)
        templates = _templates(folder, config)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"tokenizer {path_or_id}: its settings cannot be read: {error}"
        ) from error
    return TokenizerFiles(
        name=path_or_id, backend=backend, templates=templates, special_tokens=special_tokens
    )


def _fetch(path_or_id: str) -> Path:
    # Imported here: a router with local tokenizers does without it.
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = [
        TOKENIZER_FILE, _CONFIG_FILE, _SPECIAL_TOKENS_FILE, _TEMPLATE_FILE, f"{_TEMPLATE_DIR}/*",
    ]  # fmt: skip
    try:
        return Path(huggingface_hub.snapshot_download(path_or_id, allow_patterns=patterns))
    except HFValidationError:
        raise ConfigError(f"tokenizer {path_or_id}: no such directory, nor a Hub id") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"tokenizer {path_or_id}: no such directory, and not to be had from the Hub ({reason})"
        ) from error


def _load_backend(path: Path) -> tokenizers.Tokenizer:
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"tokenizer {path}: {error}") from error
    # Cutting and padding are the engine's business, and depend on its settings.
    backend.no_truncation()
    backend.no_padding()
    return backend


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(f"{path.name} is not a JSON object")
    return content


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    named = {
        key: text
        for key, value in config.items()
        if (key in _NAMED_TOKENS or (key.endswith("_token") and isinstance(value, str)))
        and (text := _text_of(value)) is not None
    }
    extra = config.get("extra_special_tokens")
    if isinstance(extra, dict):
        named |= {
            key: text for key, value in extra.items() if (text := _text_of(value)) is not None
        }
    return named


def _text_of(token: Any) -> str | None:
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _add_missing_tokens(
    backend: tokenizers.Tokenizer, config: Mapping[str, Any], special_tokens: Mapping[str, str]
) -> None:
    """Add what tokenizer_config.json declares beyond tokenizer.json, as the engine does."""
    known = {repr(token) for token in backend.get_added_tokens_decoder().values()}
    declared = config.get("added_tokens_decoder") or {}
    added = [_added_token(declared[id_]) for id_ in sorted(declared, key=int)]
    missing = [token for token in added if repr(token) not in known]
    present = {token.content for token in backend.get_added_tokens_decoder().values()}
    present |= {token.content for token in missing}
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    texts = [*special_tokens.values(), *(map(_text_of, extra) if isinstance(extra, list) else ())]
    missing += [
        tokenizers.AddedToken(text, special=True)
        for text in dict.fromkeys(texts)
        if text and text not in present
    ]
    if missing:
        backend.add_tokens(missing)
    backend.encode_special_tokens = config.get("split_special_tokens") is True


def _added_token(fields: Mapping[str, Any]) -> tokenizers.AddedToken:
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    given = {flag: fields[flag] for flag in flags if flag in fields}
    return tokenizers.AddedToken(fields["content"], **given)


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    if (path := folder / _TEMPLATE_FILE).is_file():
        found["default"] = path.read_text(encoding="utf-8")
    if (extra := folder / _TEMPLATE_DIR).is_dir():
        found |= {
            file.stem: file.read_text(encoding="utf-8") for file in sorted(extra.glob("*.jinja"))
        }
    if found:
        return found
    declared = config.get("chat_template")
    if isinstance(declared, str):
        return {"default": declared}
    if isinstance(declared, list):
        return {entry["name"]: entry["template"] for entry in declared}
    return dict(declared) if isinstance(declared, dict) else {}
