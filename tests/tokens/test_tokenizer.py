"""Texts and conversations become the engine's token ids."""

import json
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models

from lodestar_router.errors import ConfigError
from lodestar_router.tokens.request import ChatPrompt, read_prompt
from lodestar_router.tokens.tokenizer import Tokenizer
from tests.tokens import builders
from tests.tokens.payloads import CHAT, PAYLOADS

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "rendered_vllm032.json").read_text(encoding="utf-8")
)


def chat(**body: Any) -> ChatPrompt:
    prompt = read_prompt(CHAT, {"messages": [{"role": "user", "content": "hi"}], **body})
    assert isinstance(prompt, ChatPrompt)
    return prompt


def loaded(folder: Path, template: str | None = builders.CHATML, **options: Any) -> Tokenizer:
    path = builders.write(folder / "m", builders.byte_level(add_bos=True), template=template)
    return Tokenizer.load(path, **options)


@pytest.mark.parametrize("template", builders.TEMPLATES)
def test_renders_every_payload_as_vllm_does(tmp_path: Path, template: str) -> None:
    recorded_on = datetime.strptime(RECORDED["date"], "%d %b %Y")
    tokenizer = loaded(tmp_path, builders.TEMPLATES[template], now=lambda: recorded_on)
    bodies = {name: body for name, endpoint, body in PAYLOADS if endpoint == CHAT}

    texts = {name: tokenizer.render(chat(**body)) or "" for name, body in bodies.items()}

    digests = {name: sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}
    assert digests == RECORDED["prompts"][template]


@pytest.mark.parametrize("template", builders.TEMPLATES)
def test_encodes_a_chat_as_its_rendered_text(tmp_path: Path, template: str) -> None:
    tokenizer = loaded(tmp_path, builders.TEMPLATES[template])
    backend = builders.byte_level()

    for name, endpoint, body in PAYLOADS:
        if endpoint != CHAT or "add_special_tokens" in body:
            continue
        ids = tokenizer.encode_chat(chat(**body))
        text = tokenizer.render(chat(**body))

        assert ids is not None
        assert text is not None
        assert ids.tolist() == backend.encode(text, add_special_tokens=False).ids, name


@pytest.mark.parametrize("text", ["", "a b", "<|im_start|>x", "é" * 50])
@pytest.mark.parametrize("special", [True, False])
def test_special_tokens_are_put_around_a_text(tmp_path: Path, text: str, special: bool) -> None:
    tokenizer = loaded(tmp_path)

    ids = tokenizer.encode_text(text, add_special_tokens=special)

    backend = builders.byte_level(add_bos=True)
    assert ids is not None
    assert ids.dtype == "uint32"
    assert ids.tolist() == backend.encode(text, add_special_tokens=special).ids


def test_text_that_is_not_unicode_has_no_tokens(tmp_path: Path) -> None:
    assert loaded(tmp_path).encode_text("\ud800") is None


def test_a_chat_without_a_template_has_no_tokens(tmp_path: Path) -> None:
    assert loaded(tmp_path, template=None).encode_chat(chat()) is None


def test_a_chat_that_the_template_refuses_has_no_tokens(tmp_path: Path) -> None:
    assert loaded(tmp_path, "{{ raise_exception('no') }}").encode_chat(chat()) is None


def test_a_template_given_to_the_engine_replaces_the_models_own(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("own")

    tokenizer = loaded(tmp_path, chat_template=str(tmp_path / "own.jinja"))

    assert tokenizer.render(chat()) == "own"


def test_a_tokenizer_that_can_encode_nothing(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"known": 0}, unk_token="<unk>"))

    with pytest.raises(ConfigError, match="cannot encode the letter a"):
        Tokenizer.load(builders.write(tmp_path / "m", backend))


def test_a_template_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"chat template .*own\.jinja"):
        loaded(tmp_path, chat_template=str(tmp_path / "own.jinja"))


def test_the_engines_default_arguments_give_way_to_the_requests(tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path, "{{ a }}{{ b }}", template_arguments={"a": 1, "b": 2})

    assert tokenizer.render(chat(chat_template_kwargs={"b": 3})) == "13"


def test_a_content_format_given_to_the_engine_overrides_detection(tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path, "{{ messages[0].content | tojson }}", content_format="openai")

    assert tokenizer.render(chat()) == '[{"type": "text", "text": "hi"}]'


def test_arguments_that_the_template_does_not_name_are_not_passed(tmp_path: Path) -> None:
    source = "{% macro m() %}{{ kwargs | length }}{% endmacro %}{{ m(**{}) }}"

    assert loaded(tmp_path, source).render(chat(chat_template_kwargs={"x": 1})) == "0"


def test_tools_have_a_template_of_their_own_if_the_model_has_one(tmp_path: Path) -> None:
    path = builders.write(
        tmp_path / "m",
        builders.byte_level(),
        template=None,
        chat_template=[
            {"name": "default", "template": "plain"},
            {"name": "tool_use", "template": "tools"},
        ],
    )
    tokenizer = Tokenizer.load(path)

    assert tokenizer.render(chat()) == "plain"
    assert tokenizer.render(chat(tools=[{"function": {"name": "f"}}])) == "tools"


def test_the_cache_stays_within_its_bytes(tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path, cache_bytes=20_000)

    for number in range(200):
        tokenizer.encode_text(f"<|im_start|>{number} text<|im_end|>" * 3)

    assert 0 < tokenizer.cache.used_bytes <= 20_000
