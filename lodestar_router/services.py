"""The router's own endpoints that have to wait for something: made, begun and ended here."""

from collections.abc import Iterator, Mapping

from lodestar_router.batches.batches_api import BatchesApi
from lodestar_router.batches.files_api import FilesApi
from lodestar_router.batches.line_runner import LineRunner
from lodestar_router.batches.processor import Processor
from lodestar_router.batches.store import Store
from lodestar_router.config import Config
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.types import EngineId
from lodestar_router.engines.watch import EngineWatch
from lodestar_router.proxy.handler import RouteHandler
from lodestar_router.proxy.metrics import GaugeRow, Metrics
from lodestar_router.proxy.service import Service
from lodestar_router.proxy.sleep import SleepHandler
from lodestar_router.proxy.switched_off import SwitchedOff
from lodestar_router.resilience import limits_of
from lodestar_router.sleep_mode import SleepMode

_OFF = SwitchedOff(
    ("/v1/files", "/v1/batches"), "files and batches are off: --enable-batch-api serves them"
)


class Services:
    """What the server serves beside routed requests and plain GETs."""

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        watches: Mapping[EngineId, EngineWatch],
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._metrics = metrics
        self._store: Store | None = None
        self._processor: Processor | None = None
        sleep = SleepHandler(fleet=fleet, sleeper=SleepMode(fleet, watches), metrics=metrics)
        self.handlers: list[Service] = [sleep, _OFF]

    async def open(self, routes: RouteHandler) -> None:
        """Make what needs files.

        Raises:
            ConfigError: they cannot be used.
        """
        config = self._config
        if not config.batch_api:
            return
        store = Store(config.file_storage_path, limit_bytes=config.file_storage_limit_bytes)
        await store.open()
        self._store = store
        limits = limits_of(config)
        runner = LineRunner(
            routes,
            busy=lambda: routes.waited_for or self._engines_are_busy(),
            limits=limits,
            concurrency=config.batch_concurrency,
        )
        processor = self._processor = Processor(store, runner, most_bytes=limits.body_bytes)
        self._metrics.add_gauges(lambda: _rows(processor, runner))
        self.handlers[1:] = (
            FilesApi(store, self._metrics).service,
            BatchesApi(store, processor, self._metrics).service,
        )

    async def start(self) -> None:
        """Go on with what an earlier router left."""
        if self._processor is not None:
            await self._processor.start()

    async def pause(self) -> None:
        """Begin nothing more of one's own; batches go on with the next start."""
        if self._processor is not None:
            await self._processor.stop()

    async def close(self) -> None:
        """Let go of files, once nobody asks for them any more."""
        if self._store is not None:
            await self._store.close()

    def _engines_are_busy(self) -> bool:
        """Whether requests wait at every engine."""
        loads = [state.load for state in self._fleet if state.up and not state.holds]
        return bool(loads) and all(load is not None and load.num_waiting_reqs for load in loads)


def _rows(processor: Processor, runner: LineRunner) -> Iterator[GaugeRow]:
    yield "lodestar:unfinished_batches", "Batches under way.", {}, processor.unfinished
    yield "lodestar:running_batch_lines", "Lines of batches under way.", {}, runner.running
