import numpy as np

from lodestar_router.core.block_keys import TokenArray, seed_key
from lodestar_router.core.blocks import Prompt
from perf.routing.short_keys import OwnKeys, ShortKeys, ShortPrompt

SIZE = 16


def tokens(seed: int, blocks: int) -> TokenArray:
    return np.random.default_rng(seed).integers(0, 2**31, blocks * SIZE, dtype=np.uint32)


def test_blocks_are_equal_exactly_where_their_keys_are() -> None:
    short = ShortKeys()
    shared, rng = tokens(0, 5), np.random.default_rng(1)
    texts = [
        np.concatenate((shared[: int(rng.integers(0, 6)) * SIZE], tokens(seed, 3)))
        for seed in range(1, 20)
    ]
    texts += texts[:4]

    keys = [key for text in texts for key in Prompt([text]).keys(SIZE)[0]]
    names = [name for text in texts for name in ShortPrompt([text], short).keys(SIZE)[0]]

    assert len(set(zip(keys, names, strict=True))) == len(set(keys)) == len(set(names))
    assert set(names) == set(range(len(set(names)))), "numbers in a row"


def test_an_answer_has_the_names_that_a_later_prompt_gives_it() -> None:
    short = ShortKeys()
    prompt, answer = tokens(0, 4), tokens(1, 3)
    asked = ShortPrompt([prompt], short).keys(SIZE)[0]

    answered = short.chain(asked[-1], answer, SIZE)

    again = ShortPrompt([np.concatenate((prompt, answer))], short).keys(SIZE)[0]
    assert again == asked + answered


def test_a_chain_goes_on_from_the_middle_of_another() -> None:
    short = ShortKeys()
    prompt, other = tokens(0, 6), tokens(1, 2)
    asked = ShortPrompt([prompt], short).keys(SIZE)[0]
    fork = np.concatenate((prompt[3 * SIZE : 4 * SIZE], other))

    first, again = short.chain(asked[2], fork, SIZE), short.chain(asked[2], fork, SIZE)

    whole = ShortPrompt([np.concatenate((prompt[: 4 * SIZE], other))], short).keys(SIZE)[0]
    assert first == again == [asked[3], 6, 7]
    assert whole == [*asked[:4], 6, 7]


def test_block_sizes_have_blocks_of_their_own() -> None:
    short = ShortKeys()
    text = tokens(0, 4)

    small, large = short.chain(seed_key(16), text, 16), short.chain(seed_key(32), text, 32)

    assert not set(small) & set(large)


def test_a_prompt_shorter_than_a_block_has_none() -> None:
    assert ShortPrompt([tokens(0, 1)[:9]], ShortKeys()).keys(SIZE) == [[]]


def test_own_keys_are_never_given_twice_nor_to_a_prompt() -> None:
    own, short = OwnKeys(), ShortKeys()

    keys = [*own(3), *own(0), *own(2), *ShortPrompt([tokens(0, 4)], short).keys(SIZE)[0]]

    assert len(set(keys)) == 9
