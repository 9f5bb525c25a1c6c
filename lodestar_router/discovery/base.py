"""What a source of engines is, and what it says of each engine.

A source tells the whole set that there is now, never a difference. Whoever applies it
compares it with what runs, so a missed message cannot leave an engine behind.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lodestar_router.core.types import EngineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """One engine as its source sees it now."""

    spec: EngineSpec
    uid: str = ""  # of the pod or service; another uid behind the same URL is another engine
    not_ready: str = ""  # why it must get no new requests; "" if it may
    asleep: bool = False  # somebody has marked it as sleeping; the engine itself knows better
    revision: str = ""  # when it changes, the models that the engine serves may have changed
    warnings: tuple[str, ...] = ()  # what is wrong with its description and was left out


class Source(Protocol):
    """One source of engines."""

    @property
    def synced(self) -> bool:
        """Whether `current` is all there is; False until it was seen once."""
        ...

    def current(self) -> Sequence[Discovered]:
        """All engines, ready or not; at most one per engine id."""
        ...

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """What happened since the start, by what is followed; for /metrics."""
        ...

    async def run(self, changed: Callable[[], None]) -> None:
        """Follow the source until cancelled; calls `changed` whenever `current` may differ.

        It outlives whatever trouble the source has: what was known stays.
        """
        ...
