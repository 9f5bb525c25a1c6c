"""The class vLLM loads from the entry point group `vllm.stat_logger_plugins`.

vLLM makes one per API-server process and calls record() on that process's event
loop, once for every batch of outputs that an engine step sends there.

Source   vllm/v1/metrics/loggers.py (AggregateStatLoggerBase, StatLoggerManager),
         vllm/v1/engine/async_llm.py (output_handler) at v0.32.0.
"""

import os
import weakref
from typing import Any

from vllm.v1.metrics.loggers import AggregateStatLoggerBase

from lodestar_vllm_stats.plugin import StatsPlugin


class SchedulerStatsLogger(AggregateStatLoggerBase):  # type: ignore[misc]
    """Hands every step to the plugin; one instance covers all ranks of the process."""

    def __init__(self, vllm_config: Any, engine_indexes: list[int]) -> None:
        self._plugin = StatsPlugin(vllm_config, engine_indexes, os.environ)
        # vLLM drops its loggers without a word (when it rescales, when it exits);
        # a publisher that went on would say that a dead view is fresh.
        weakref.finalize(self, self._plugin.close)

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Add one engine step."""
        self._plugin.record(scheduler_stats, iteration_stats, engine_idx)

    def log_engine_initialized(self) -> None:
        """The publisher has been sending since construction."""
