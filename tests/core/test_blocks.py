"""Keys of a whole prompt, and the same keys from an engine's events."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lodestar_router.core.block_keys import chain_keys, extend_key
from lodestar_router.core.blocks import Prompt, stored_keys
from lodestar_router.core.kv_events import BlockStored
from tests.core.kv_samples import prompt_of, tokens


def event(token_ids: Sequence[int], block_size_tokens: int, **fields: Any) -> BlockStored:
    count = len(token_ids) // block_size_tokens
    return BlockStored(
        block_hashes=tuple(range(count)),
        parent_block_hash=None,
        token_ids=token_ids,
        block_size_tokens=block_size_tokens,
        **fields,
    )


@pytest.mark.parametrize("seed", range(20))
def test_keys_from_events_equal_keys_of_the_whole_prompt(seed: int) -> None:
    rng = random.Random(seed)
    size = rng.choice([1, 2, 16, 32, 256, 300])
    ids = [rng.randrange(1 << 32) for _ in range(rng.randrange(1, 40) * size + rng.randrange(size))]

    keys: list[int] = []
    while len(keys) < len(ids) // size:
        count = rng.randrange(1, len(ids) // size - len(keys) + 1)
        piece = ids[len(keys) * size : (len(keys) + count) * size]
        found = stored_keys(event(piece, size), keys[-1] if keys else None)
        assert found is not None
        keys += found

    assert prompt_of(ids).keys(size) == [keys]


def test_a_prompt_longer_than_one_table_of_powers_is_chained_on() -> None:
    ids = np.arange(5000, dtype=np.uint32)

    whole = chain_keys(1, ids, 1)
    one_by_one, key = [], 1
    for token in ids.tolist():
        key = extend_key(key, [token])
        one_by_one.append(key)

    assert whole == one_by_one


def test_a_key_depends_on_every_token_before_it() -> None:
    base = tokens(6)
    keys = prompt_of(base).keys(4)[0]

    for changed in range(len(base)):
        other = prompt_of([*base[:changed], base[changed] ^ 1, *base[changed + 1 :]]).keys(4)[0]
        first = changed // 4
        assert other[:first] == keys[:first]
        assert not set(other[first:]) & set(keys)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(prompt_of([2, 1, 3, 4]), id="order-in-a-block"),
        pytest.param(prompt_of([3, 4, 1, 2]), id="order-of-blocks"),
        pytest.param(prompt_of([1, 2, 3, 4], lora_name="x"), id="lora"),
        pytest.param(prompt_of([1, 2, 3, 4], cache_salt="x"), id="salt"),
        pytest.param(prompt_of([0, 0, 1, 2, 3, 4]), id="a-block-of-zeros-before"),
    ],
)
def test_prompts_that_differ_share_no_key(other: Prompt) -> None:
    base = prompt_of([1, 2, 3, 4])

    assert not set(base.keys(2)[0]) & set(other.keys(2)[0])


def test_block_sizes_share_no_key() -> None:
    prompt = prompt_of([7] * 64)

    assert not set(prompt.keys(16)[0]) & set(prompt.keys(32)[0])


def test_no_key_is_seen_twice_among_many_near_prompts() -> None:
    seen: set[int] = set()
    for token in range(20_000):
        seen.update(prompt_of([token, 0, token >> 3, 5]).keys(2)[0])
        seen.add(extend_key(1, [0, token]))

    assert len(seen) == 60_000


@pytest.mark.parametrize(
    ("fields", "identity"),
    [
        pytest.param({}, {}, id="none"),
        pytest.param({"extra_keys": (None, None)}, {}, id="none-as-said-by-vllm-0.32"),
        pytest.param({"lora_name": "x"}, {"lora_name": "x"}, id="lora-before-extra-keys"),
        pytest.param(
            {"lora_name": "x", "extra_keys": (("x",), ("x",))}, {"lora_name": "x"}, id="lora"
        ),
        pytest.param({"extra_keys": (("s",), None)}, {"cache_salt": "s"}, id="salt"),
        pytest.param(
            {"lora_name": "x", "extra_keys": (("x", "s"), ("x",))},
            {"lora_name": "x", "cache_salt": "s"},
            id="lora-and-salt",
        ),
        pytest.param(
            {"lora_name": "x", "extra_keys": (("x", "x"), ("x",))},
            {"lora_name": "x", "cache_salt": "x"},
            id="salt-spelt-like-the-lora",
        ),
    ],
)
def test_identity_beyond_tokens_is_the_same_from_events_and_requests(
    fields: dict[str, Any], identity: dict[str, str]
) -> None:
    ids = tokens(2)

    assert stored_keys(event(ids, 4, **fields), None) == prompt_of(ids, **identity).keys(4)[0]


def test_images_at_other_places_make_other_blocks() -> None:
    ids = tokens(2)
    extras: list[Any] = [None, ("img", 0), ("img", 1), ("other", 0), (("img", 0), "s")]

    keys = [stored_keys(event(ids, 4, extra_keys=(one, None)), None) for one in extras]

    assert len({tuple(each or ()) for each in keys}) == len(extras)


def test_a_salt_and_a_lora_of_one_name_are_told_apart() -> None:
    ids = tokens(1)

    salted = stored_keys(event(ids, 4, extra_keys=(("x",),)), None)
    adapted = stored_keys(event(ids, 4, extra_keys=(("x",),), lora_name="x"), None)

    assert salted != adapted


def test_an_event_whose_tokens_do_not_fill_its_blocks_has_no_keys() -> None:
    short = BlockStored(
        block_hashes=(1, 2), parent_block_hash=None, token_ids=[1, 2, 3], block_size_tokens=2
    )

    assert stored_keys(short, None) is None


@pytest.mark.parametrize(
    ("sizes", "blocks"),
    [([0], [0]), ([1], [0]), ([4], [0]), ([5], [1]), ([8], [1]), ([9, 4, 13], [2, 0, 3])],
)
def test_the_last_token_is_never_reused(sizes: list[int], blocks: list[int]) -> None:
    prompt = prompt_of(*([1] * size for size in sizes))

    assert prompt.reusable_blocks(4) == blocks
    assert prompt.tokens == sum(sizes)


@pytest.mark.parametrize("length", [0, 1, 3, 4, 63, 64, 65, 1000])
def test_text_is_counted_and_keyed_as_tokens_of_four_bytes(length: int) -> None:
    prompt = Prompt.from_text(b"x" * length)

    assert not prompt.tokens_known
    assert prompt.tokens == -(-length // 4)
    assert [len(keys) for keys in prompt.text_keys()] == [length // 64]
    assert prompt.keys(16) == [[]]


def test_text_that_begins_alike_shares_leading_keys_only() -> None:
    one = Prompt.from_text(b"a" * 128 + b"b" * 64).text_keys()[0]
    two = Prompt.from_text(b"a" * 128 + b"c" * 64).text_keys()[0]

    assert one[:2] == two[:2]
    assert one[2] != two[2]


def test_text_is_not_taken_for_token_ids() -> None:
    text = Prompt.from_text(b"abcd" * 16)
    ids = Prompt([np.frombuffer(b"abcd" * 16, dtype=np.uint32)])

    assert ids.text_keys() == [[]]
    assert text.text_keys() != ids.keys(16)
