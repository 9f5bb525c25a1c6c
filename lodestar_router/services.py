"""The router's own endpoints that have to wait for something: made, begun and ended here."""

from collections.abc import Mapping, Sequence

from lodestar_router.core.fleet import Fleet
from lodestar_router.core.types import EngineId
from lodestar_router.engines.watch import EngineWatch
from lodestar_router.proxy.metrics import Metrics
from lodestar_router.proxy.service import Service
from lodestar_router.proxy.sleep import SleepHandler
from lodestar_router.sleep_mode import SleepMode


class Services:
    """What the server serves beside routed requests and plain GETs."""

    def __init__(
        self, *, fleet: Fleet, watches: Mapping[EngineId, EngineWatch], metrics: Metrics
    ) -> None:
        sleep = SleepHandler(fleet=fleet, sleeper=SleepMode(fleet, watches), metrics=metrics)
        self.handlers: Sequence[Service] = (sleep,)
