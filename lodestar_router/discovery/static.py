"""Engines that the operator names."""

from collections.abc import Callable, Mapping, Sequence

from lodestar_router.core.types import EngineSpec
from lodestar_router.discovery.base import Discovered


class StaticSource:
    """Always the same engines."""

    synced = True

    def __init__(self, specs: Sequence[EngineSpec]) -> None:
        self._found = tuple(Discovered(spec=spec) for spec in specs)

    def current(self) -> Sequence[Discovered]:
        """The engines in the order they were named."""
        return self._found

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """Nothing ever happens."""
        return {}

    async def run(self, changed: Callable[[], None]) -> None:
        """Nothing ever changes."""
        changed()
