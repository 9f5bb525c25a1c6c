"""Texts of emulated engines: token ids that survive the way to the client and back."""

import json
from pathlib import Path

import pytest

from lodestar_router.emulator.server_language import Language, TextError
from lodestar_router.emulator.server_tokenizer import builtin_tokenizer
from lodestar_router.errors import ConfigError
from tests.emulator.server_rig import language

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.mark.parametrize("may_end", [True, False], ids=["ends-by-itself", "full-length"])
def test_an_answer_in_the_next_prompt_has_the_ids_it_was_generated_with(may_end: bool) -> None:
    for seed in range(30):
        question = {"role": "user", "content": f"What is {seed}?"}
        (prompt,) = language().encode(CHAT, {"messages": [question]})
        answer = language().answer(seed, 200, chat=True, may_end=may_end)
        said = {"role": "assistant", "content": answer.text(0, 200)}

        (following,) = language().encode(
            CHAT, {"messages": [question, said, {"role": "user", "content": "And?"}]}
        )

        # The end mark of an answer is the one the template puts there.
        expected = [*prompt.tolist(), *answer.token_ids.tolist()]
        assert following[: len(expected)].tolist() == expected


def test_a_completion_continues_its_prompt() -> None:
    for seed in range(30):
        (prompt,) = language().encode(COMPLETIONS, {"prompt": "Once upon"})
        answer = language().answer(seed, 60, chat=False, may_end=False)

        (following,) = language().encode(COMPLETIONS, {"prompt": "Once upon" + answer.text(0, 60)})

        assert following.tolist() == [*prompt.tolist(), *answer.token_ids.tolist()]


def test_equal_seeds_give_equal_answers_of_at_most_the_length() -> None:
    answers = [language().answer(seed, 40, chat=True, may_end=True) for seed in (1, 1, 2)]

    assert answers[0].text(0, 40) == answers[1].text(0, 40) != answers[2].text(0, 40)
    assert all(len(answer.token_ids) <= 40 for answer in answers)
    assert all(len(answer.words) == len(answer.token_ids) for answer in answers)


def test_what_is_no_prompt_is_refused() -> None:
    for body in ({"prompt": 5}, {"prompt": ["a", 5]}, {"prompt": [language().vocab_size]}):
        with pytest.raises(TextError):
            language().encode(COMPLETIONS, body)


def test_the_built_in_tokenizer_is_a_directory_as_models_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    written = builtin_tokenizer()

    assert written.is_relative_to(tmp_path)
    assert builtin_tokenizer() == written
    assert json.loads((written / "tokenizer.json").read_text())["model"]["type"] == "BPE"
    text = "Grüße, 世界! def f(x): return x\n"
    ids = language().encode(COMPLETIONS, {"prompt": text})[0].tolist()
    assert language().decode(ids[1:]) == text


def test_a_home_that_cannot_be_written_leaves_the_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert builtin_tokenizer().is_relative_to(tmp_path)


def test_a_tokenizer_without_words_cannot_answer(tmp_path: Path) -> None:
    model = {"type": "WordLevel", "vocab": {"[x]": 0}, "unk_token": "[x]"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))

    with pytest.raises(ConfigError, match="no words"):
        Language(str(tmp_path))
