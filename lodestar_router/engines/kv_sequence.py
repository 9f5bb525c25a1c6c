"""Where the router is in one engine's numbered stream of event batches.

Every batch has a sequence number from 0 up, in each life of the engine. The
rules of what a number proves are here; the sockets are in `kv_subscriber.py`.

    seq == next                      apply
    seq <  next, payload as before   duplicate
    seq <  next, payload differs     the engine restarted
    seq >  next                      gap
    after a new connection, even seq == next proves nothing: a restarted engine
    may have overtaken the old count. Only a payload seen before does, because it
    holds the engine's time.

`complete`: every batch since the cache was last empty has been applied.
"""

from collections import OrderedDict
from enum import Enum, auto

_REMEMBERED_PAYLOADS = 4096  # a reader lags at most this far behind its own replay


class Step(Enum):
    """What to do with a batch."""

    APPLY = auto()
    DUPLICATE = auto()
    GAP = auto()  # batches are missing before this one, or may be
    RESTART = auto()


class StreamPosition:
    """The next expected number, and how sure the router is of what came before."""

    def __init__(self) -> None:
        self.next_seq: int | None = None  # None: nothing is known of this engine
        self.complete = False
        self.proven = False  # the engine now connected is the one whose batches were applied
        self._digests: OrderedDict[int, int] = OrderedDict()

    @property
    def exact(self) -> bool:
        """Whether what was applied is all there is, up to the newest batch received."""
        return self.complete and self.proven

    def judge(self, seq: int, payload: bytes) -> Step:
        """What a batch with this number means here; changes nothing."""
        if self.next_seq is None:
            return Step.APPLY
        if self.knows(seq, payload):
            return Step.DUPLICATE
        if seq < self.next_seq:
            return Step.RESTART
        return Step.APPLY if seq == self.next_seq and self.proven else Step.GAP

    def advance(self, seq: int, payload: bytes) -> None:
        """The batch is being applied, whatever came before it."""
        if not self.next_seq:  # nothing was applied yet
            self.complete = seq == 0
        elif seq != self.next_seq or not self.proven:
            self.complete = False
        self.next_seq = seq + 1
        self.proven = True
        self._digests[seq] = hash(payload)
        if len(self._digests) > _REMEMBERED_PAYLOADS:
            self._digests.popitem(last=False)

    def knows(self, seq: int, payload: bytes) -> bool:
        """Whether exactly this batch was applied before."""
        return self._digests.get(seq) == hash(payload)

    def nothing_published(self) -> None:
        """The engine says it has published nothing yet: its cache is empty."""
        self.next_seq, self.complete, self.proven = 0, True, True

    def cleared(self) -> None:
        """The cache was emptied by the batch just applied: nothing older matters."""
        self.complete = True

    def lost(self) -> None:
        """A batch was missed or could not be read."""
        self.complete = False

    def disconnected(self) -> None:
        """Whoever answers next may be another life of the engine."""
        self.proven = False

    def forget(self) -> None:
        """The engine restarted: start over."""
        self.next_seq = None
        self.complete = self.proven = False
        self._digests.clear()
