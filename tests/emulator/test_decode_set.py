"""DecodeSet: everything a member needs falls on the right step."""

import pytest

from lodestar_router.emulator.decode_set import DecodeSet
from lodestar_router.emulator.sequence import Sequence
from tests.emulator.factories import request

BLOCK = 4


def decoding(members: DecodeSet, name: str, prompt: int, max_tokens: int) -> Sequence:
    """A sequence whose prompt is computed and whose first token is out."""
    sequence = Sequence(
        request(name, prompt=prompt, max_tokens=max_tokens),
        order=1,
        block_size_tokens=BLOCK,
        max_model_len=100,
        vocab_size=10,
        hashed=False,
    )
    sequence.offset_tokens = prompt
    members.add(sequence)
    return sequence


def test_progress_follows_the_steps_of_the_set() -> None:
    members = DecodeSet(BLOCK)
    early = decoding(members, "early", prompt=5, max_tokens=50)
    members.advance()
    members.advance()
    late = decoding(members, "late", prompt=9, max_tokens=50)
    members.advance()

    assert (early.computed_tokens, early.output_tokens) == (8, 4)
    assert (late.computed_tokens, late.output_tokens) == (10, 2)
    assert members.kv_tokens == 18


@pytest.mark.parametrize("prompt", [3, 4, 5, 6, 7, 8])
def test_a_block_is_needed_at_its_first_token_and_filled_by_its_last(prompt: int) -> None:
    members = DecodeSet(BLOCK)
    sequence = decoding(members, "a", prompt=prompt, max_tokens=30)

    for _ in range(12):
        position = sequence.computed_tokens
        assert (sequence in members.needing_block()) == (position % BLOCK == 0)
        assert (sequence in members.filling_block()) == (position % BLOCK == BLOCK - 1)
        members.advance()


def test_a_member_leaves_with_its_last_token() -> None:
    members = DecodeSet(BLOCK)
    sequence = decoding(members, "a", prompt=5, max_tokens=3)

    assert [members.advance() for _ in range(2)] == [[], [sequence]]
    assert (sequence.computed_tokens, sequence.num_tokens) == (7, 8)
    assert members.count == 0


def test_one_that_leaves_keeps_its_progress() -> None:
    members = DecodeSet(BLOCK)
    sequence = decoding(members, "a", prompt=5, max_tokens=30)
    members.advance()

    members.remove(sequence)
    members.advance()

    assert (sequence.computed_tokens, sequence.num_tokens) == (6, 7)
    assert members.kv_tokens == 0
