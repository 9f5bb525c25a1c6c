"""Which views hold which keys."""

import random

import pytest

from lodestar_router.core.key_table import KeyTable


@pytest.mark.parametrize("seed", range(5))
def test_random_changes_agree_with_a_set_per_bit(seed: int) -> None:
    rng = random.Random(seed)
    table = KeyTable()
    naive: dict[int, set[int]] = {table.claim_bit(): set() for _ in range(3)}

    for _ in range(300):
        bit = rng.choice([*naive])
        keys = rng.sample(range(10), rng.randrange(4))
        if rng.random() < 0.5:
            table.set(keys, bit)
            naive[bit].update(keys)
        else:
            table.clear(keys, bit)
            naive[bit].difference_update(keys)

        assert len(table) == len(set[int]().union(*naive.values()))
        for key in range(10):
            holders = sum(bit for bit, held in naive.items() if key in held)
            [*_, (deepest, depth)] = table.leading([key], sum(naive))
            assert (deepest if depth else 0) == holders


def test_an_owner_that_gave_its_bit_back_changes_nothing() -> None:
    table = KeyTable()
    bit = table.claim_bit()
    table.set([1], bit)

    table.clear([1, 2], 0)

    assert table.leading([1, 2], bit) == [(bit, 1)]
    assert len(table) == 1
