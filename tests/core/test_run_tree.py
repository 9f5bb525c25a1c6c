"""The tree of runs against a plain list of keys in order of use."""

from collections.abc import Sequence
from random import Random

import pytest

from lodestar_router.core.run_tree import Known, RunTree


class PlainOrder:
    """The same, key by key: (tick, -depth) of each key's last use."""

    def __init__(self) -> None:
        self.uses: dict[int, tuple[int, int]] = {}

    def depth(self, keys: Sequence[int]) -> int:
        return next((i for i, key in enumerate(keys) if key not in self.uses), len(keys))

    def use(self, keys: Sequence[int], tick: int) -> None:
        self.uses.update({key: (tick, -depth) for depth, key in enumerate(keys)})

    def drop_oldest(self, count: int) -> int:
        oldest = sorted(self.uses, key=self.uses.__getitem__)[:count]
        for key in oldest:
            del self.uses[key]
        return len(oldest)

    def drop_used_until(self, tick: int) -> int:
        before = len(self.uses)
        self.uses = {key: use for key, use in self.uses.items() if use[0] > tick}
        return before - len(self.uses)


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

        assert tree.depth(keys) == plain.depth(keys)
        known = tree.use(keys, tick)

        assert (known[-1].depth if known else 0) == plain.depth(keys)
        plain.use(keys, tick)
        assert tree.depth(keys) == len(keys)
        assert [k.depth for k in known] == sorted(k.depth for k in known)
        assert [k.tick for k in known] == sorted((k.tick for k in known), reverse=True)
        if rng.random() < 0.3:
            count = rng.randrange(len(plain.uses) + 2)
            assert tree.drop_oldest(count) == plain.drop_oldest(count)
        elif rng.random() < 0.05:
            until = tick - rng.randrange(30)
            assert tree.drop_used_until(until) == plain.drop_used_until(until)
        assert len(tree) == len(plain.uses)
        some = chained(rng.choice(contents))
        assert tree.depth(some) == plain.depth(some)

    tree.clear()
    assert (len(tree), tree.depth(keys)) == (0, 0)


def test_says_when_each_part_was_last_used() -> None:
    tree = RunTree()
    tree.use([1, 2, 3, 4], 1)
    tree.use([1, 2], 2)

    assert tree.use([1, 2, 3, 5], 3) == [Known(2, 2), Known(3, 1)]


def test_of_one_use_the_deepest_is_dropped_first() -> None:
    tree = RunTree()
    tree.use([1, 2, 3, 4], 1)

    assert tree.drop_oldest(2) == 2
    assert tree.depth([1, 2, 3, 4]) == 2
