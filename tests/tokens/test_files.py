"""Model repositories are read as the engine reads them, and errors are one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from lodestar_router.errors import ConfigError
from lodestar_router.tokens.files import read_files, tokenizer_dir_of
from tests.tokens import builders


def test_reads_tokenizer_template_and_special_tokens(tmp_path: Path) -> None:
    folder = builders.write(
        tmp_path / "m", builders.byte_level(), pad_token={"content": "<|eos|>"}, image_token="<i>"
    )

    files = read_files(folder)

    assert files.templates == {"default": builders.CHATML}
    assert files.special_tokens == {
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "pad_token": "<|eos|>",
        "image_token": "<i>",
    }


def test_the_tokenizer_file_itself_names_its_directory(tmp_path: Path) -> None:
    folder = builders.write(tmp_path / "m", builders.byte_level())

    assert read_files(f"{folder}/tokenizer.json").templates == {"default": builders.CHATML}


@pytest.mark.parametrize(
    ("declared", "templates"),
    [
        pytest.param("one", {"default": "one"}, id="string"),
        pytest.param(
            [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}],
            {"default": "a", "tool_use": "b"},
            id="named",
        ),
        pytest.param(None, {}, id="none"),
    ],
)
def test_templates_in_the_settings(
    tmp_path: Path, declared: Any, templates: dict[str, str]
) -> None:
    folder = builders.write(
        tmp_path / "m", builders.byte_level(), template=None, chat_template=declared
    )

    assert read_files(folder).templates == templates


def test_template_files_win_over_the_settings(tmp_path: Path) -> None:
    folder = builders.write(tmp_path / "m", builders.byte_level(), chat_template="old")
    extra = tmp_path / "m" / "additional_chat_templates"
    extra.mkdir()
    (extra / "tool_use.jinja").write_text("tools")

    assert read_files(folder).templates == {"default": builders.CHATML, "tool_use": "tools"}


def test_tokens_declared_beside_the_tokenizer_are_added(tmp_path: Path) -> None:
    folder = builders.write(
        tmp_path / "m",
        builders.byte_level(),
        added_tokens_decoder={"900": {"content": "<new>", "special": True}},
        extra_special_tokens=["<more>"],
        sep_token="<sep>",
    )

    backend = read_files(folder).backend

    for token in ("<new>", "<more>", "<sep>"):
        assert backend.encode(token, add_special_tokens=False).tokens == [token]


def test_older_repositories_keep_their_special_tokens_apart(tmp_path: Path) -> None:
    folder = builders.write(tmp_path / "m", builders.byte_level())
    (tmp_path / "m" / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": {"content": "<|eos|>", "lstrip": False}})
    )

    assert read_files(folder).special_tokens["bos_token"] == "<|eos|>"


def test_cutting_and_padding_in_the_file_are_ignored(tmp_path: Path) -> None:
    backend = builders.byte_level()
    backend.enable_truncation(3)
    backend.enable_padding(length=8)
    folder = builders.write(tmp_path / "m", backend)

    assert len(read_files(folder).backend.encode("a b c d e f").ids) > 3


def test_a_directory_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer\.json in it"):
        read_files(str(tmp_path))


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such directory, nor a Hub id") as caught:
        read_files(str(tmp_path / "missing" / "model"))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"1": {}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "a"}}}'),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: str) -> None:
    folder = builders.write(tmp_path / "m", builders.byte_level())
    (tmp_path / "m" / name).write_text(content)

    with pytest.raises(ConfigError, match="tokenizer"):
        read_files(folder)


def test_a_model_card_names_a_directory_that_holds_a_tokenizer(tmp_path: Path) -> None:
    folder = builders.write(tmp_path / "m", builders.byte_level())

    assert tokenizer_dir_of({"id": "m", "root": folder}) == folder


@pytest.mark.parametrize("root", [None, "", 5, "org/model", "/no/such/place"])
def test_other_model_cards_do_not(root: Any) -> None:
    assert tokenizer_dir_of({"id": "m", "root": root}) is None
