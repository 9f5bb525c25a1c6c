"""Token ids of text segments, bounded in bytes; those not used lately are forgotten.

In       put(key, ids); pinned keys, which are always known.
Out      get_all(keys) -> ids or None for each.
Cost     0.05 us per key, hashing aside: one dict lookup in C. Memory at most
         `limit_bytes`, keys and dict included, pinned keys excluded.
Errors   none; a segment larger than half the limit is not kept.

Two generations stand in for an order of use: what is found in the old one moves to
the young one; when that is half the limit, it becomes the old one and what was
left in there is forgotten. So what was used since the last change is kept.

Shared by the event loop and the tokenizer's threads, hence the lock; reading the
young generation needs none.
"""

import sys
from collections.abc import Mapping, Sequence
from threading import Lock

Ids = bytes  # of uint32, in the machine's byte order: what joins fastest
Key = str | tuple[str]  # a segment inside a text; in a tuple: at its start

# What CPython 3.11 adds per entry: the ids' object, the key's tuple and the dict's slot.
_ENTRY_BYTES = 250


class SegmentCache:
    """See the module."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._pinned: Mapping[Key, Ids] = {}
        self._young: dict[Key, Ids] = {}
        self._old: dict[Key, Ids] = {}
        self._lock = Lock()
        self._young_bytes = self._old_bytes = 0

    def __len__(self) -> int:
        return len(self._young) - len(self._pinned) + len(self._old)

    def __repr__(self) -> str:
        return (
            f"<SegmentCache {len(self)} segments | {self.used_bytes} of {self._limit_bytes} bytes>"
        )

    @property
    def used_bytes(self) -> int:
        """Of both generations."""
        return self._young_bytes + self._old_bytes

    def get_all(self, keys: Sequence[Key]) -> list[Ids | None]:
        """The ids of each key; those that are known count as used now."""
        found = list(map(self._young.get, keys))
        if self._old and None in found:
            with self._lock:
                found = [
                    self._from_old(key) if ids is None else ids
                    for key, ids in zip(keys, found, strict=True)
                ]
        return found

    def put(self, key: Key, ids: Ids) -> None:
        """Keep `ids`."""
        with self._lock:
            if key not in self._young:
                self._old_bytes -= _size(key, self._old.pop(key, None))
                self._add(key, ids)

    def _from_old(self, key: Key) -> Ids | None:
        ids = self._old.pop(key, None)
        if ids is None:
            return self._young.get(key)  # asked for twice at once, or found in the meantime
        self._old_bytes -= _size(key, ids)
        self._add(key, ids)
        return ids

    def _add(self, key: Key, ids: Ids) -> None:
        size = _size(key, ids)
        half = self._limit_bytes // 2
        if size > half:
            return
        if self._young_bytes + size > half:
            self._old, self._old_bytes = self._young, self._young_bytes
            for pinned in self._pinned:
                del self._old[pinned]
            self._young, self._young_bytes = dict(self._pinned), 0
        self._young[key] = ids
        self._young_bytes += size

    def clear(self, pinned: Mapping[Key, Ids] | None = None) -> None:
        """Forget everything, and know `pinned` from now on."""
        with self._lock:
            self._pinned = dict(pinned or {})
            self._young, self._old = dict(self._pinned), {}
            self._young_bytes = self._old_bytes = 0


def _size(key: Key, ids: Ids | None) -> int:
    if ids is None:
        return 0
    text = key if isinstance(key, str) else key[0]
    return _ENTRY_BYTES + sys.getsizeof(text) + len(ids)
