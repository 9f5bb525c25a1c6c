"""BlockPool: the order of reuse, shared blocks, twins."""

from lodestar_router.core.kv_events import BlockRemoved, BlockStored
from lodestar_router.emulator.block_pool import BlockPool, as_published
from lodestar_router.emulator.sequence import Sequence
from tests.emulator.factories import request


def pool(num_blocks: int = 8, *, events: bool = True) -> BlockPool:
    return BlockPool(num_blocks, 16, events=events)


def holding(blocks: BlockPool, name: str, prompt: list[int] | int) -> Sequence:
    """A sequence whose whole prompt is stored."""
    sequence = Sequence(
        request(name, prompt=prompt),
        order=1,
        block_size_tokens=16,
        max_model_len=1000,
        vocab_size=10,
        hashed=True,
    )
    sequence.blocks = blocks.allocate(-(-sequence.prompt_tokens // 16))
    blocks.store(sequence, sequence.prompt_tokens // 16)
    return sequence


def test_blocks_are_handed_out_in_order_and_the_null_block_never() -> None:
    blocks = pool(5)

    assert blocks.allocate(4) == [1, 2, 3, 4]
    assert (blocks.free_count, blocks.usage_ratio) == (0, 1.0)


def test_blocks_with_content_go_last_and_a_sequence_loses_its_end_first() -> None:
    blocks = pool(8)
    sequence = holding(blocks, "a", prompt=40)

    blocks.release(sequence.blocks, sequence.stored_blocks)

    # Block 3 is not full, so it keeps nothing; 4 to 7 were never used.
    assert blocks.allocate(7) == [3, 4, 5, 6, 7, 2, 1]


def test_content_is_found_until_its_block_is_handed_out() -> None:
    blocks = pool(4)
    sequence = holding(blocks, "a", prompt=48)
    blocks.release(sequence.blocks, sequence.stored_blocks)
    blocks.take_events()

    blocks.allocate(1)

    assert blocks.lookup(sequence.keys, 3) == [1, 2]
    assert blocks.lookup(sequence.keys, 1) == [1]
    assert blocks.take_events() == [
        BlockRemoved(block_hashes=(sequence.keys[2],), medium="GPU", group_idx=0)
    ]


def test_blocks_forgotten_together_are_one_event_and_published_as_one_each() -> None:
    blocks = pool(4)
    sequence = holding(blocks, "a", prompt=48)
    blocks.release(sequence.blocks, sequence.stored_blocks)
    stored = blocks.take_events()

    blocks.allocate(2)

    [removal] = blocks.take_events()
    assert isinstance(removal, BlockRemoved)
    assert removal.block_hashes == (sequence.keys[2], sequence.keys[1])
    assert list(as_published([*stored, removal])) == [
        *stored,
        BlockRemoved(block_hashes=(sequence.keys[2],), medium="GPU", group_idx=0),
        BlockRemoved(block_hashes=(sequence.keys[1],), medium="GPU", group_idx=0),
    ]


def test_a_shared_block_is_free_when_the_last_holder_lets_go() -> None:
    blocks = pool(4)
    sequence = holding(blocks, "a", prompt=16)
    found = blocks.lookup(sequence.keys, 1)
    blocks.share(found)

    blocks.release(sequence.blocks, sequence.stored_blocks)
    held = blocks.free_count
    blocks.release(found, len(found))

    assert (held, blocks.free_count) == (2, 3)
    assert blocks.idle(found) == 1


def test_equal_content_in_two_blocks_is_found_while_one_of_them_lasts() -> None:
    blocks = pool(4)
    prompt = list(range(16))
    first, second = holding(blocks, "a", prompt), holding(blocks, "b", prompt)
    assert blocks.lookup(first.keys, 1) == first.blocks

    blocks.release(first.blocks, first.stored_blocks)
    blocks.allocate(2)
    assert blocks.lookup(first.keys, 1) == second.blocks

    blocks.release(second.blocks, second.stored_blocks)
    blocks.allocate(1)
    assert blocks.lookup(first.keys, 1) == []


def test_a_stored_event_names_its_parent_and_holds_its_tokens() -> None:
    blocks = pool()
    prompt = list(range(50))
    sequence = holding(blocks, "a", prompt[:16])
    longer = holding(blocks, "b", prompt)

    stored = blocks.take_events()[-1]

    assert isinstance(stored, BlockStored)
    assert stored.block_hashes == tuple(longer.keys)
    assert stored.block_hashes[0] == sequence.keys[0]
    assert list(stored.token_ids) == prompt[:48]
    assert stored.parent_block_hash is None
    assert stored.extra_keys == (None, None, None)


def test_events_can_be_off() -> None:
    blocks = pool(4, events=False)
    sequence = holding(blocks, "a", prompt=48)
    blocks.release(sequence.blocks, sequence.stored_blocks)

    blocks.allocate(3)

    assert blocks.take_events() == []
    assert blocks.clear() is False


def test_events_may_leave_tokens_out() -> None:
    blocks = BlockPool(8, 16, events=True, tokens=False)
    sequence = holding(blocks, "a", prompt=48)

    [stored] = blocks.take_events()

    assert isinstance(stored, BlockStored)
    assert (stored.keys, stored.token_ids) == (sequence.keys, ())
