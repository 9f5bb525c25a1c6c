import pytest
from lodestar_vllm_stats.settings import Settings, bind_endpoint, settings_from


def test_defaults() -> None:
    assert settings_from({}) == Settings(endpoint="tcp://*:5559", interval_s=0.01, heartbeat_s=0.25)


def test_environment_is_read_in_milliseconds() -> None:
    settings = settings_from(
        {
            "LODESTAR_STATS_ENDPOINT": " tcp://10.0.0.1:7000 ",
            "LODESTAR_STATS_INTERVAL_MS": "2.5",
            "LODESTAR_STATS_HEARTBEAT_MS": "1000",
        }
    )

    assert settings == Settings(endpoint="tcp://10.0.0.1:7000", interval_s=0.0025, heartbeat_s=1.0)


def test_a_heartbeat_is_never_shorter_than_the_interval() -> None:
    settings = settings_from(
        {"LODESTAR_STATS_INTERVAL_MS": "500", "LODESTAR_STATS_HEARTBEAT_MS": "100"}
    )

    assert settings.heartbeat_s == 0.5


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_an_interval_that_is_no_positive_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="LODESTAR_STATS_INTERVAL_MS"):
        settings_from({"LODESTAR_STATS_INTERVAL_MS": text})


@pytest.mark.parametrize(
    ("endpoint", "first_rank", "api_process", "bound"),
    [
        pytest.param("tcp://*:5559", 0, 0, "tcp://*:5559", id="plain"),
        pytest.param("tcp://*:5559", 3, 0, "tcp://*:5562", id="data-parallel-rank"),
        pytest.param("tcp://*:5559", 0, 2, "tcp://*:5561", id="api-server"),
        pytest.param("tcp://[::1]:5559", 1, 1, "tcp://[::1]:5561", id="ipv6"),
        pytest.param("tcp://127.0.0.1:*", 1, 1, "tcp://127.0.0.1:*", id="any-port"),
        pytest.param("ipc:///run/stats", 0, 0, "ipc:///run/stats", id="ipc"),
        pytest.param("ipc:///run/stats", 0, 1, "ipc:///run/stats.1", id="ipc-suffix"),
    ],
)
def test_processes_on_one_host_bind_different_endpoints(
    endpoint: str, first_rank: int, api_process: int, bound: str
) -> None:
    assert bind_endpoint(endpoint, first_rank=first_rank, api_process=api_process) == bound


@pytest.mark.parametrize(
    "endpoint",
    ["5559", "udp://*:5559", "tcp://", "tcp://5559", "tcp://host:http", "tcp://host:65535"],
)
def test_an_endpoint_that_cannot_be_bound_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="LODESTAR_STATS_ENDPOINT"):
        bind_endpoint(endpoint, first_rank=1, api_process=0)
