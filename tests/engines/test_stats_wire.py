import msgspec
import pytest

from lodestar_router.core.types import EngineLoad
from lodestar_router.engines.stats_wire import (
    FinishedRequest,
    MalformedStatsError,
    UnknownStatsVersionError,
    decode,
    encode,
    to_load,
)
from tests.engines.stats_samples import finished, scheduler_stats


def changed(**fields: object) -> bytes:
    """A valid message as a map, with some keys set to something else."""
    message = msgspec.msgpack.decode(encode(scheduler_stats()))
    return msgspec.msgpack.encode({**message, **fields})


def test_what_is_encoded_decodes_to_the_same() -> None:
    stats = scheduler_stats(num_running_reqs=7, finished=(finished(), finished(cached_tokens=0)))

    assert decode(encode(stats)) == stats


def test_the_wire_is_a_map_with_a_version_and_finished_requests_as_arrays() -> None:
    message = msgspec.msgpack.decode(encode(scheduler_stats(finished=(finished(),))))

    assert message["v"] == 1
    assert message["finished"] == [[0.25, 0.5, 2.0, 2.75, 100, 16, 64]]


def test_keys_and_trailing_values_of_a_newer_plugin_are_ignored() -> None:
    row = [0.25, 0.5, 2.0, 2.75, 100, 16, 64, "stop"]

    stats = decode(changed(asleep=True, finished=[row]))

    assert stats.finished == (finished(),)


def test_whole_numbers_are_fine_where_seconds_are_expected() -> None:
    assert decode(changed(state_age_s=0, finished=[[0, 1, 2, 3, 4, 5, 6]])).finished == (
        FinishedRequest(
            queue_s=0,
            prefill_s=1,
            decode_s=2,
            e2e_s=3,
            prompt_tokens=4,
            generation_tokens=5,
            cached_tokens=6,
        ),
    )


@pytest.mark.parametrize("version", [0, 2, 900])
def test_another_version_is_told_apart_from_rubbish(version: int) -> None:
    with pytest.raises(UnknownStatsVersionError, match=str(version)):
        decode(changed(v=version))


def test_another_version_may_have_another_shape() -> None:
    with pytest.raises(UnknownStatsVersionError, match="version 2"):
        decode(msgspec.msgpack.encode({"v": 2, "ranks": []}))


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xc1", id="not-msgpack"),
        pytest.param(b"\x93\x01\x02", id="cut"),
        pytest.param(msgspec.msgpack.encode([1, 2]), id="no-map"),
        pytest.param(msgspec.msgpack.encode({"v": 1}), id="keys-missing"),
        pytest.param(changed(num_running_reqs=-1), id="negative-count"),
        pytest.param(changed(num_running_reqs="3"), id="text-count"),
        pytest.param(changed(kv_cache_usage_ratio=55.0), id="percent-for-ratio"),
        pytest.param(changed(state_age_s=-1.0), id="negative-age"),
        pytest.param(changed(state_age_s=float("nan")), id="nan-age"),
        pytest.param(changed(finished=[[1.0]]), id="short-finished-row"),
    ],
)
def test_rubbish_is_one_clear_error(payload: bytes) -> None:
    with pytest.raises(MalformedStatsError, match="not a scheduler stats message"):
        decode(payload)


def test_load_of_a_single_rank() -> None:
    stats = scheduler_stats(num_running_reqs=3, num_waiting_reqs=2, kv_cache_usage_ratio=0.5)

    assert to_load(stats, 9.0) == EngineLoad(
        observed_at_s=9.0,
        source="scheduler_stats",
        num_running_reqs=3,
        num_waiting_reqs=2,
        kv_cache_usage_ratio=0.5,
    )
