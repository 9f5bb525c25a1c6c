"""Engines from an operator's few words, and what is refused."""

from typing import Any

import pytest

from lodestar_router.emulator.build import EngineSettings, build_engine
from lodestar_router.emulator.config import EngineModelConfig, SchedulerKind
from lodestar_router.errors import ConfigError


def test_a_v100_is_what_vllm_runs_there() -> None:
    config = build_engine(EngineSettings(gpu="V100")).config

    assert config.scheduler is SchedulerKind.PREFILL_FIRST
    assert not config.prefix_caching
    assert config.max_num_batched_tokens == config.max_model_len == 30_000


def test_an_a30_is_what_vllm_runs_there() -> None:
    config = build_engine(EngineSettings(gpu="A30")).config

    assert config.scheduler is SchedulerKind.CHUNKED
    assert config.prefix_caching
    assert (config.num_blocks, config.max_num_batched_tokens) == (2733, 2048)
    assert (config.max_num_seqs, config.vocab_size) == (256, 128_256)


def test_settings_win_over_defaults() -> None:
    config = build_engine(
        EngineSettings(
            gpu="V100",
            scheduler=SchedulerKind.CHUNKED,
            prefix_caching=True,
            kv_blocks=100,
            max_num_seqs=8,
            slowdown=3.0,
        )
    ).config

    assert (config.num_blocks, config.max_num_seqs, config.slowdown) == (100, 8, 3.0)
    assert config.prefix_caching
    assert config.max_num_batched_tokens == 2048


@pytest.mark.parametrize("scheduler", SchedulerKind)
@pytest.mark.parametrize("kv_blocks", [20, 150, 2733])
def test_the_default_context_fits_the_pool(scheduler: SchedulerKind, kv_blocks: int) -> None:
    config = build_engine(
        EngineSettings(gpu="A30", scheduler=scheduler, kv_blocks=kv_blocks)
    ).config

    usable = config.num_blocks - 1 - config.watermark_blocks
    assert 0 < config.max_model_len <= usable * config.block_size_tokens


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"num_blocks": 1}, "holds nothing", id="no-blocks"),
        pytest.param({"block_size_tokens": 1}, "block_size_tokens", id="block-size"),
        pytest.param({"max_num_seqs": 4096}, "max_num_seqs", id="more-seqs-than-tokens"),
        pytest.param({"chunked_prefill": False}, "chunked prefill", id="unchunked-budget"),
        pytest.param({"scheduler": SchedulerKind.PREFILL_FIRST}, "chunked prefill", id="v0-budget"),
        pytest.param(
            {
                "scheduler": SchedulerKind.PREFILL_FIRST,
                "max_model_len": 1024,
                "long_prefill_token_threshold": 64,
            },
            "long_prefill_token_threshold",
            id="v0-threshold",
        ),
        pytest.param({"slowdown": 0.0}, "slowdown", id="slowdown"),
    ],
)
def test_a_combination_that_cannot_run_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineModelConfig(**{"num_blocks": 100, **fields})
