"""Puts an engine to sleep and wakes it, so that no request meets a sleeping one.

sleep     no new requests first, then the engine is asked
wake up   the engine is asked; it gets requests once it says itself that it is awake
"""

from collections.abc import Mapping

from lodestar_router.core.fleet import Fleet
from lodestar_router.core.types import EngineId
from lodestar_router.engines.watch import SLEEP, EngineWatch

# Moving the weights of a large model off the GPU or back takes minutes.
_TIMEOUT_S = 300.0


class SleepMode:
    """Of all engines."""

    def __init__(self, fleet: Fleet, watches: Mapping[EngineId, EngineWatch]) -> None:
        self._fleet = fleet
        self._watches = watches

    async def ask(
        self, engine_id: EngineId, method: str, target: str, body: bytes, request_id: str
    ) -> tuple[int, bytes]:
        """The engine's (status, body).

        Raises:
            EngineError: it does not answer.
        """
        watch = self._watches[engine_id]
        if target.partition("?")[0] == "/sleep":
            self._fleet.hold(engine_id, SLEEP, "going to sleep")
        try:
            return await watch.api.relay(
                method, target, body, request_id=request_id, timeout_s=_TIMEOUT_S
            )
        finally:
            if engine_id in self._fleet:
                await watch.look_asleep()
