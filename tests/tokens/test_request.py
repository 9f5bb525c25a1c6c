"""Prompts are found in every endpoint's body, and nothing is guessed."""

from typing import Any

import pytest

from lodestar_router.tokens.request import (
    ChatPrompt,
    IdPrompts,
    TextPrompts,
    read_prompt,
    text_of,
)

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("endpoint", "body", "texts", "special"),
    [
        pytest.param("/v1/completions", {"prompt": "a"}, ("a",), True, id="completion"),
        pytest.param("/v1/completions", {"prompt": ["a", "b"]}, ("a", "b"), True, id="batch"),
        pytest.param(
            "/v1/completions",
            {"prompt": "a", "add_special_tokens": False},
            ("a",),
            False,
            id="bare",
        ),
        pytest.param("/v1/embeddings", {"input": ["a", "b"]}, ("a", "b"), True, id="embeddings"),
        pytest.param("/pooling", {"input": "a"}, ("a",), True, id="pooling"),
        pytest.param("/tokenize", {"prompt": "a"}, ("a",), True, id="tokenize"),
    ],
)
def test_texts(endpoint: str, body: dict[str, Any], texts: tuple[str, ...], special: bool) -> None:
    prompt = read_prompt(endpoint, body)

    assert prompt == TextPrompts(texts=texts, add_special_tokens=special)


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        pytest.param([1, 2, 3], [[1, 2, 3]], id="one"),
        pytest.param([[1], [2, 3]], [[1], [2, 3]], id="batch"),
        pytest.param([4294967295], [[4294967295]], id="largest"),
    ],
)
def test_token_ids(prompt: Any, ids: list[list[int]]) -> None:
    read = read_prompt("/v1/completions", {"prompt": prompt})

    assert isinstance(read, IdPrompts)
    assert [sequence.tolist() for sequence in read.sequences] == ids
    assert all(sequence.dtype == "uint32" for sequence in read.sequences)


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        pytest.param("/v1/completions", {}, id="no-prompt"),
        pytest.param("/v1/completions", {"prompt": []}, id="empty-list"),
        pytest.param("/v1/completions", {"prompt": [1, "a"]}, id="mixed"),
        pytest.param("/v1/completions", {"prompt": ["a", 1]}, id="mixed-texts"),
        pytest.param("/v1/completions", {"prompt": [[1], 2]}, id="mixed-batch"),
        pytest.param("/v1/completions", {"prompt": [1, [2]]}, id="ragged"),
        pytest.param("/v1/completions", {"prompt": [-1]}, id="negative"),
        pytest.param("/v1/completions", {"prompt": [1.5]}, id="float"),
        pytest.param("/v1/completions", {"prompt": [2**32]}, id="too-large"),
        pytest.param("/v1/completions", {"prompt": [2**80]}, id="far-too-large"),
        pytest.param("/v1/completions", {"prompt": [[]]}, id="empty-sequence"),
        pytest.param("/v1/completions", {"prompt": {"a": 1}}, id="object"),
        pytest.param("/v1/completions", {"prompt": "a", "suffix": "b"}, id="suffix"),
        pytest.param("/v1/completions", {"prompt": "a", "prompt_embeds": "x"}, id="embeds"),
        pytest.param("/v1/completions", {"prompt": "a", "add_special_tokens": 1}, id="flag"),
        pytest.param(CHAT, {"prompt": "a"}, id="chat-without-messages"),
        pytest.param(CHAT, {"messages": []}, id="no-messages"),
        pytest.param(CHAT, {"messages": "hi"}, id="messages-not-a-list"),
        pytest.param(CHAT, {"messages": MESSAGES, "tools": []}, id="no-tools"),
        pytest.param(CHAT, {"messages": MESSAGES, "tools": ["f"]}, id="malformed-tool"),
        pytest.param(CHAT, {"messages": MESSAGES, "continue_final_message": True}, id="both-ends"),
        pytest.param(CHAT, {"messages": MESSAGES, "chat_template": "x"}, id="own-template"),
        pytest.param(CHAT, {"messages": MESSAGES, "chat_template_kwargs": [1]}, id="kwargs"),
        pytest.param(
            CHAT, {"messages": MESSAGES, "chat_template_kwargs": {"tokenize": True}}, id="reserved"
        ),
        pytest.param(
            CHAT,
            {"messages": MESSAGES, "kv_transfer_params": {"prompt_token_ids": [1]}},
            id="forwarded-ids",
        ),
        pytest.param("/v1/responses", {"input": "a"}, id="responses"),
        pytest.param("/score", {"queries": "a", "documents": ["b"]}, id="score"),
    ],
)
def test_what_only_the_engine_can_turn_into_tokens_is_none(
    endpoint: str, body: dict[str, Any]
) -> None:
    assert read_prompt(endpoint, body) is None


@pytest.mark.parametrize(
    ("more", "arguments"),
    [
        pytest.param({}, {}, id="plain"),
        pytest.param({"chat_template_kwargs": {"a": 1}}, {"a": 1}, id="own"),
        pytest.param({"chat_template_kwargs": {"a": None, "b": "auto"}}, {}, id="not-given"),
        pytest.param(
            {"reasoning_effort": "low"},
            {"reasoning_effort": "low", "enable_thinking": True},
            id="effort-turns-thinking-on",
        ),
        pytest.param(
            {"reasoning_effort": "none"},
            {"reasoning_effort": "none", "enable_thinking": False},
            id="no-effort-turns-it-off",
        ),
        pytest.param(
            {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}},
            {"reasoning_effort": "low", "enable_thinking": False},
            id="unless-said-otherwise",
        ),
        pytest.param({"documents": [{"a": "b"}]}, {"documents": [{"a": "b"}]}, id="documents"),
        pytest.param(
            {"chat_template_kwargs": {"add_generation_prompt": False}}, {}, id="the-body-wins"
        ),
    ],
)
def test_template_arguments(more: dict[str, Any], arguments: dict[str, Any]) -> None:
    prompt = read_prompt(CHAT, {"messages": MESSAGES, **more})

    assert isinstance(prompt, ChatPrompt)
    flags = {"add_generation_prompt": True, "continue_final_message": False}
    assert prompt.arguments == arguments | flags


def test_embeddings_of_messages_open_no_turn() -> None:
    prompt = read_prompt("/v1/embeddings", {"messages": MESSAGES, "tools": ["ignored"]})

    assert isinstance(prompt, ChatPrompt)
    assert prompt.arguments["add_generation_prompt"] is False
    assert prompt.tools is None


def test_the_text_of_the_next_turn_starts_with_that_of_this_one() -> None:
    answer = {"role": "assistant", "content": "4"}
    first = text_of(CHAT, {"messages": MESSAGES, "tools": [{"a": 1}]})
    second = text_of(CHAT, {"messages": [*MESSAGES, answer], "tools": [{"a": 1}]})

    assert second.startswith(first)
    assert second != first


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"prompt": "a é"}, "a é".encode()),
        ({"input": ["a", "b"]}, b"a\x1eb"),
        ({"prompt": [1, 2]}, b"[1, 2]"),
        ({"prompt": "\ud800"}, b"\xed\xa0\x80"),
        ({}, b""),
    ],
)
def test_text_of_any_prompt(body: dict[str, Any], text: bytes) -> None:
    assert text_of("/v1/completions", body) == text


def test_text_of_parts_tells_pictures_apart() -> None:
    bodies = [
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]}
        for url in ("a", "b")
    ]

    assert text_of(CHAT, bodies[0]) != text_of(CHAT, bodies[1])
