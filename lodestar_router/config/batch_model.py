"""The checked settings of files and batches; what each one is for stands in batch_settings.py."""

from dataclasses import dataclass
from pathlib import Path

from lodestar_router.config.edge_model import EdgeConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig(EdgeConfig):
    """Whether there are any, where they are kept, how many lines run."""

    batch_api: bool
    file_storage_class: str
    file_storage_path: Path
    file_storage_limit_bytes: int  # 0: no limit
    batch_processor: str
    batch_concurrency: int
