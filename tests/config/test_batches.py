"""The flags of files and batches."""

from pathlib import Path

import pytest

from lodestar_router.config import parse
from lodestar_router.errors import ConfigError

ENGINES = ["--engines", "http://a:8000"]


def test_they_are_off_unless_asked_for_and_kept_where_production_stack_keeps_them() -> None:
    config = parse(ENGINES, {})

    assert config.batch_api is False
    assert config.file_storage_path == Path("/tmp/vllm_files")
    assert (config.file_storage_class, config.batch_processor) == ("local_file", "local")
    assert (config.file_storage_limit_bytes, config.batch_concurrency) == (10 * 2**30, 8)


def test_production_stack_s_flags_are_taken() -> None:
    flags = "--enable-batch-api --file-storage-class local_file --file-storage-path=/data/files"
    more = "--batch-processor local --batch-concurrency 3 --file-storage-limit-mib 0"

    config = parse([*ENGINES, *flags.split(), *more.split()], {})

    assert (config.batch_api, config.file_storage_path) == (True, Path("/data/files"))
    assert (config.file_storage_limit_bytes, config.batch_concurrency) == (0, 3)


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--file-storage-class=s3", "'s3' is no file storage"),
        ("--batch-processor=ray", "'ray' is no batch processor"),
        ("--batch-concurrency=0", "from 1 to 4096"),
        ("--file-storage-limit-mib=-1", "whole number"),
        (f"--file-storage-path={__file__}", "no directory"),
    ],
)
def test_values_that_mean_nothing_are_refused(flag: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse([*ENGINES, flag], {})
