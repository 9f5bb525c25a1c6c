"""Profiles: what is known, and clear words for what is not."""

import pytest

from lodestar_router.emulator import profiles
from lodestar_router.emulator.profiles import gpu_names, load_profile, model_names
from lodestar_router.errors import ConfigError


def test_every_gpu_loads_every_model_or_says_that_it_does_not_fit() -> None:
    for gpu in gpu_names():
        for model in model_names():
            try:
                profile = load_profile(gpu, model)
            except ConfigError as error:
                assert "does not fit" in str(error)  # noqa: PT017
            else:
                assert profile.kv_blocks > 0
                assert profile.provenance


def test_the_docs_say_of_every_gpu_how_far_to_trust_it() -> None:
    documented = profiles.__doc__ or ""

    assert [gpu for gpu in gpu_names() if gpu not in documented] == []


def test_the_kv_pool_is_the_measured_one_where_there_is_one() -> None:
    assert load_profile("A30", "llama-3-8b").kv_blocks == 2733
    assert load_profile("L20", "llama-3-8b").kv_blocks == 13564


@pytest.mark.parametrize(
    ("gpu", "model", "message"),
    [
        pytest.param("B9000", "llama-3-8b", "unknown GPU kind 'B9000'; known: A30, V1", id="gpu"),
        pytest.param("A30", "gpt-2", "unknown model 'gpt-2'; known: llama-3-8b", id="model"),
        pytest.param("A30", "llama-3-70b-tp4", "does not fit the memory", id="too-large"),
    ],
)
def test_what_is_not_known_is_a_config_error(gpu: str, model: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        load_profile(gpu, model)


def test_short_names_stand_for_the_common_sizes() -> None:
    assert load_profile("V100", "llama-3-8b").gpu == "V100-32GB"
    assert load_profile("A100", "llama-3-8b").gpu == "A100-80G"
