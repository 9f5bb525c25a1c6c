"""Requests that enter a hold queue."""

from lodestar_router.core.held import Held
from lodestar_router.core.hold import HoldQueue, HoldSettings
from lodestar_router.core.types import EngineId

A, B = EngineId("a"), EngineId("b")
LONG = HoldSettings(max_s=10.0)


def held(number: int, work_s: float, arrived_at_s: float = 0.0, client: str | None = None) -> Held:
    return Held(
        number=number,
        arrived_at_s=arrived_at_s,
        work_s=work_s,
        uncached_tokens=int(work_s * 1000),
        client=client,
    )


def enter(queue: HoldQueue, request: Held, engine: EngineId = A, *, at_once: bool = False) -> bool:
    return queue.enter(engine, request, request.arrived_at_s, at_once=at_once)
