"""Engines are asked for exactly the prompt that was sent, and may fail."""

from collections.abc import Sequence
from typing import Any

import pytest

from lodestar_router.errors import EngineError
from lodestar_router.tokens.engine import engine_ids, tokenize_payloads
from lodestar_router.tokens.request import ChatPrompt, TextPrompts, read_prompt
from tests.tokens.payloads import PAYLOADS, tokenize_body

TEXT = TextPrompts(texts=("a",), add_special_tokens=True)


class Engine:
    """Answers each question with a fixed answer, or fails."""

    def __init__(self, answer: Sequence[int] | Exception | None) -> None:
        self._answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def tokenize(self, model: str, payload: dict[str, Any]) -> Sequence[int] | None:
        self.asked.append((model, payload))
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(("name", "endpoint", "body"), PAYLOADS, ids=[p[0] for p in PAYLOADS])
def test_asks_for_the_prompt_of_the_request(name: str, endpoint: str, body: dict[str, Any]) -> None:
    prompt = read_prompt(endpoint, body)
    assert isinstance(prompt, ChatPrompt | TextPrompts)

    [asked] = tokenize_payloads(prompt, "m")

    by_hand = tokenize_body(endpoint, body, "m")
    assert by_hand.get("messages") == asked.get("messages")
    # What one of them leaves out is the default, so both mean the same prompt.
    assert read_prompt("/tokenize", asked) == read_prompt("/tokenize", by_hand), name


async def test_gives_one_sequence_per_text() -> None:
    engine = Engine([1, 2])
    prompt = TextPrompts(texts=("a", "b"), add_special_tokens=False)

    ids = await engine_ids(prompt, "m", engine.tokenize)

    assert ids is not None
    assert [sequence.tolist() for sequence in ids] == [[1, 2], [1, 2]]
    assert [payload["prompt"] for _, payload in engine.asked] == ["a", "b"]


@pytest.mark.parametrize(
    "answer",
    [None, EngineError("down"), OSError("reset"), TimeoutError(), ["x"], [-1]],
    ids=["refused", "failed", "reset", "timeout", "rubbish", "negative"],
)
async def test_an_engine_that_fails_gives_none(answer: Any) -> None:
    assert await engine_ids(TEXT, "m", Engine(answer).tokenize) is None


async def test_large_batches_are_not_asked_for() -> None:
    engine = Engine([1])
    prompt = TextPrompts(texts=("a",) * 17, add_special_tokens=True)

    assert await engine_ids(prompt, "m", engine.tokenize) is None
    assert engine.asked == []
