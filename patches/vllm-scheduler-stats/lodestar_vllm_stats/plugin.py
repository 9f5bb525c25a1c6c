"""The plugin without vLLM: from its configuration to a running publisher.

In       vLLM's configuration object, the ranks this process serves, environment.
Out      a publisher, or none when the plugin is switched off or cannot start.
Errors   none leave this module: an exception on vLLM's event loop would end its
         output handler, and one at start would end the server. Each kind of
         failure is logged once.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lodestar_vllm_stats.publisher import Publisher
from lodestar_vllm_stats.settings import bind_endpoint, settings_from

_logger = logging.getLogger("vllm.lodestar_stats")


class StatsPlugin:
    """Records steps if it can, and never raises."""

    def __init__(
        self, vllm_config: Any, engine_indexes: Sequence[int], environ: Mapping[str, str]
    ) -> None:
        self.publisher: Publisher | None = None
        self.record_errors_total = 0
        try:
            self.publisher = _publisher(vllm_config, engine_indexes, environ)
            if self.publisher is not None:
                self.publisher.start()
        except Exception as error:  # noqa: BLE001 - see Errors above
            _logger.error("scheduler stats are off: %s", error)
            self.publisher = None

    def record(self, scheduler_stats: Any, iteration_stats: Any, engine_index: int) -> None:
        """Add one engine step."""
        if self.publisher is None:
            return
        try:
            self.publisher.record(scheduler_stats, iteration_stats, engine_index)
        except Exception:  # see Errors above
            self.record_errors_total += 1
            if self.record_errors_total == 1:
                _logger.exception(
                    "scheduler stats: a step was skipped; its rank is silent until one can be read"
                )

    def close(self) -> None:
        """Stop publishing."""
        if self.publisher is not None:
            self.publisher.close()


def _publisher(
    vllm_config: Any, engine_indexes: Sequence[int], environ: Mapping[str, str]
) -> Publisher | None:
    settings = settings_from(environ)
    if not settings.endpoint:
        _logger.info("scheduler stats are switched off (empty endpoint)")
        return None
    # Private in vLLM: 0 for a single API server, 0..n-1 for several, -1 for none.
    api_process = max(0, getattr(vllm_config.parallel_config, "_api_process_rank", 0))
    endpoint = bind_endpoint(
        settings.endpoint, first_rank=min(engine_indexes, default=0), api_process=api_process
    )
    return Publisher(
        endpoint,
        engine_indexes,
        interval_s=settings.interval_s,
        heartbeat_s=settings.heartbeat_s,
    )
