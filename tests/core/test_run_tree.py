"""The tree of runs against a plain list of keys in order of use."""

from collections.abc import Sequence
from random import Random

import pytest

from lodestar_router.core.run_tree import Known, RunTree


class PlainOrder:
    """The same, key by key: (tick, -depth) of each key's last use."""

    def __init__(self) -> None:
        self.uses: dict[int, tuple[int, int]] = {}

    def use(self, keys: Sequence[int], tick: int) -> int:
        """Returns how many leading keys were known."""
        known = next((i for i, key in enumerate(keys) if key not in self.uses), len(keys))
        self.uses.update({key: (tick, -depth) for depth, key in enumerate(keys)})
        return known

    def oldest(self, count: int) -> list[int]:
        return sorted(self.uses, key=self.uses.__getitem__)[:count]

    def used_until(self, tick: int) -> set[int]:
        return {key for key, (last, _) in self.uses.items() if last <= tick}

    def drop(self, keys: Sequence[int]) -> None:
        for key in keys:
            del self.uses[key]


def chained(content: Sequence[int]) -> list[int]:
    """Keys that say everything that led to them."""
    keys, key = [], 0
    for part in content:
        key = hash((key, part))
        keys.append(key)
    return keys


@pytest.mark.parametrize("seed", range(20))
def test_equals_keeping_every_key_apart(seed: int) -> None:
    rng = Random(seed)
    tree, plain = RunTree(), PlainOrder()
    contents: list[list[int]] = [[]]

    for tick in range(1, 300):
        base = rng.choice(contents)[: rng.randrange(40)]
        contents.append([*base, *(rng.randrange(3) for _ in range(rng.randrange(12)))])
        keys = chained(contents[-1])

        known, new = tree.use(keys, tick)

        depth = plain.use(keys, tick)
        assert (known[-1].depth if known else 0) == depth
        assert list(new) == keys[depth:]
        assert [k.depth for k in known] == sorted(k.depth for k in known)
        assert [k.tick for k in known] == sorted((k.tick for k in known), reverse=True)
        if rng.random() < 0.3:
            count = rng.randrange(len(plain.uses) + 2)
            dropped = tree.drop_oldest(count)
            assert set(dropped) == set(plain.oldest(count))
            plain.drop(dropped)
        elif rng.random() < 0.05:
            until = tick - rng.randrange(30)
            dropped = tree.drop_used_until(until)
            assert set(dropped) == plain.used_until(until)
            plain.drop(dropped)
        assert len(tree) == len(plain.uses)

    assert set(tree.clear()) == set(plain.uses)
    assert len(tree) == 0


def test_says_when_each_part_was_last_used() -> None:
    tree = RunTree()
    tree.use([1, 2, 3, 4], 1)
    tree.use([1, 2], 2)

    known, new = tree.use([1, 2, 3, 5], 3)

    assert known == [Known(2, 2), Known(3, 1)]
    assert new == [5]


def test_of_one_use_the_deepest_is_dropped_first() -> None:
    tree = RunTree()
    tree.use([1, 2, 3, 4], 1)

    assert sorted(tree.drop_oldest(2)) == [3, 4]
    assert tree.use([1, 2, 3], 2) == ([Known(2, 1)], [3])
