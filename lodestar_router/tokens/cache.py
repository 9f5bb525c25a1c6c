"""Token ids of text segments, least recently used first out, bounded in bytes.

In       put(key, ids); key is (starts the text, segment text).
Out      get(key) -> ids or None.
Cost     O(1), under 1 us. Memory at most `limit_bytes`, keys and dict included.
Errors   none; a segment larger than the limit is not kept.

Shared by the event loop and the tokenizer's threads, hence the lock.
"""

import sys
from collections import OrderedDict
from threading import Lock

from lodestar_router.tokens.request import TokenIds

Key = tuple[bool, str]

# What CPython 3.11 adds per entry: the key's tuple, the array's object and the
# ordered dict's node and slot.
_ENTRY_BYTES = 400


class SegmentCache:
    """Least recently used segments leave when the total passes the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[Key, TokenIds] = OrderedDict()
        self._lock = Lock()
        self.used_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return (
            f"<SegmentCache {len(self)} segments | {self.used_bytes} of {self._limit_bytes} bytes>"
        )

    def get(self, key: Key) -> TokenIds | None:
        """The segment's ids, which becomes the most recently used one."""
        with self._lock:
            ids = self._entries.get(key)
            if ids is not None:
                self._entries.move_to_end(key)
            return ids

    def put(self, key: Key, ids: TokenIds) -> None:
        """Keep `ids`, and forget what was not used for longest if need be."""
        size = _entry_bytes(key, ids)
        if size > self._limit_bytes:
            return
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = ids
            self.used_bytes += size
            while self.used_bytes > self._limit_bytes:
                self.used_bytes -= _entry_bytes(*self._entries.popitem(last=False))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self.used_bytes = 0


def _entry_bytes(key: Key, ids: TokenIds) -> int:
    return _ENTRY_BYTES + sys.getsizeof(key[1]) + ids.nbytes
