"""The flags of files and batches: production-stack's, and what it has no limits for.

Source   src/vllm_router/parsers/parser.py at a6c01db.
"""

from typing import Final

from lodestar_router.config import converters as to
from lodestar_router.config.setting import Setting

_BATCHES = "files and batches"

BATCH_SETTINGS: Final = (
    Setting(
        name="enable-batch-api", field="batch_api", group=_BATCHES, metavar=None,
        convert=to.switch, default="false",
        help="serve /v1/files and /v1/batches",
    ),
    Setting(
        name="file-storage-class", field="file_storage_class", group=_BATCHES, metavar="KIND",
        convert=to.one_of("file storage", ("local_file",)), default="local_file",
        help="local_file: a directory of this machine",
    ),
    Setting(
        name="file-storage-path", field="file_storage_path", group=_BATCHES,
        metavar="DIRECTORY", convert=to.directory, default="/tmp/vllm_files",
        help="that directory, of this router alone; what is in it outlives the router as long as "
        "the directory does",
    ),
    Setting(
        name="file-storage-limit-mib", field="file_storage_limit_bytes", group=_BATCHES,
        metavar="MIB", convert=to.mebibytes(0, 2**30), default="10240",
        help="size of all uploads together, 507 above; 0 for the disk's own. One upload is "
        "limited by --max-body-mib",
    ),
    Setting(
        name="batch-processor", field="batch_processor", group=_BATCHES, metavar="KIND",
        convert=to.one_of("batch processor", ("local",)), default="local",
        help="local: this router runs the lines of batches",
    ),
    Setting(
        name="batch-concurrency", field="batch_concurrency", group=_BATCHES, metavar="COUNT",
        convert=to.whole(1, 4096), default="8",
        help="lines of all batches under way at a time; none begins while other requests wait in "
        "the router or at every engine",
    ),
)  # fmt: skip
