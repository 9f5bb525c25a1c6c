"""A multiset of block keys in which nearly every count is one.

    count(key) = (key in keys) + (further holders, noted for the few that have any)

In       sequences of keys, added and removed together; no key twice in one `add`.
Out      which keys are in it at all; of those added, which are new; of those removed,
         which are gone.
Cost     about 0.03 us per key whose count is one before and after, 0.1 us for others:
         sets work through a whole sequence in C.
Errors   none: a key that is not there is removed in vain.
"""

from collections import Counter
from collections.abc import Sequence


class KeyCounts:
    """`keys` is for reading, and for adding one that is not in it."""

    __slots__ = ("_further", "keys")

    def __init__(self) -> None:
        self.keys: set[int] = set()
        self._further: Counter[int] = Counter()  # holders of a key beyond the first

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, keys: Sequence[int]) -> Sequence[int]:
        """One holder more of each key; the keys that nobody held before."""
        if self.keys.isdisjoint(keys):
            new = keys
        else:
            again = self.keys.intersection(keys)
            self._further.update(again)
            new = [key for key in keys if key not in again]
        self.keys.update(new)
        return new

    def remove(self, keys: Sequence[int]) -> Sequence[int]:
        """One holder less of each key, a repeated one included; the keys that nobody holds now."""
        further = self._further
        if further and not further.keys().isdisjoint(keys):
            last = []
            for key in keys:
                others = further.get(key)
                if others is None:
                    last.append(key)
                elif others > 1:
                    further[key] = others - 1
                else:
                    further.pop(key)  # not `del`, which a Counter makes ten times slower
            keys = last
        self.keys.difference_update(keys)
        return keys

    def remove_last(self, key: int) -> bool:
        """Take out one key that one holds; false, and nothing done, if more do or none does."""
        if key in self._further or key not in self.keys:
            return False
        self.keys.remove(key)
        return True

    def clear(self) -> None:
        """Nobody holds anything."""
        self.keys = set()
        self._further.clear()
