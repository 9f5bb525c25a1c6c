"""Sequence: tokens and keys that do not depend on when they are asked for."""

import numpy as np
import pytest

from lodestar_router.core.block_keys import chain_keys, seed_key
from lodestar_router.emulator.sequence import (
    EmulatedRequest,
    Sequence,
    answer_seed,
    answer_tokens,
)
from tests.emulator.factories import request


def sequence_of(entry: EmulatedRequest, max_model_len: int = 10_000) -> Sequence:
    return Sequence(
        entry,
        order=1,
        block_size_tokens=16,
        max_model_len=max_model_len,
        vocab_size=1000,
        hashed=True,
    )


def test_answers_depend_on_seed_and_position_only() -> None:
    seed = answer_seed("a")
    whole = answer_tokens(seed, 0, 600, vocab_size=1000)

    assert whole.max() < 1000
    assert len(set(whole.tolist())) > 300
    assert whole[100:110].tolist() == answer_tokens(seed, 100, 10, 1000).tolist()
    assert whole.tolist() != answer_tokens(answer_seed("b"), 0, 600, 1000).tolist()


def test_a_request_may_say_whose_answer_it_gets() -> None:
    twin = EmulatedRequest(
        request_id="b", token_ids=[1], max_tokens=9, answer_seed=answer_seed("a")
    )

    assert sequence_of(twin).answer(0, 9) == sequence_of(request("a", [1], 9)).answer(0, 9)


@pytest.mark.parametrize("first_step", [2, 5, 40], ids=lambda n: f"{n}-blocks-first")
def test_keys_are_those_of_the_whole_text(first_step: int) -> None:
    sequence = sequence_of(request("a", prompt=20, max_tokens=700))
    text = np.array(sequence.tokens(0, 720), dtype=np.uint32)

    for count in range(first_step, 44, 3):
        sequence.extend_keys(count)
    sequence.extend_keys(44)

    assert sequence.keys == chain_keys(seed_key(16), text, 16)


def test_tokens_may_be_cut_anywhere() -> None:
    sequence = sequence_of(request("a", prompt=20, max_tokens=700))
    whole = sequence.tokens(0, 720)

    for start, stop in ((0, 10), (10, 20), (15, 25), (20, 30), (300, 700), (20, 20)):
        assert sequence.tokens(start, stop) == whole[start:stop]


def test_an_answer_ends_where_the_context_does() -> None:
    sequence = sequence_of(request("a", prompt=20, max_tokens=700), max_model_len=64)

    assert sequence.end_tokens == 64


@pytest.mark.parametrize(
    "token_ids",
    [
        pytest.param([1, 2, 3], id="list"),
        pytest.param(np.array([1, 2, 3], dtype=np.uint32), id="uint32"),
        pytest.param(np.array([1, 2, 3], dtype=np.int64), id="int64"),
        pytest.param(np.array([1, 0, 2, 0, 3, 0], dtype=np.uint32)[::2], id="strided"),
    ],
)
def test_a_prompt_comes_in_any_form(token_ids: list[int]) -> None:
    entry = EmulatedRequest(request_id="a", token_ids=token_ids, max_tokens=1)

    assert list(sequence_of(entry).tokens(0, 3)) == [1, 2, 3]


def test_blocks_behind_the_prompt_may_be_named_instead_of_keyed() -> None:
    named = EmulatedRequest(
        request_id="a",
        token_ids=list(range(40)),
        max_tokens=30,
        own_keys=lambda count: [-1 - number for number in range(count)],
    )
    sequence = sequence_of(named)
    prompt = list(sequence.keys)

    sequence.extend_keys(3)

    assert len(prompt) == 2
    assert sequence.keys == [*prompt, -1, -2]  # 70 tokens fill four blocks
