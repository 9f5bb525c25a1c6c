"""Endpoints as engines name them, and as the router connects to them."""

import json
from pathlib import Path
from typing import Any

import pytest

from lodestar_router.engines.kv_endpoints import (
    KvEventSource,
    parse_kv_event_sources,
    resolve_endpoint,
)

CAPTURE = Path(__file__).parent.parent / "data" / "vllm032_kv_event_sources.txt"


@pytest.mark.parametrize(
    ("endpoint", "host", "resolved"),
    [
        ("tcp://*:5557", "10.0.0.7", "tcp://10.0.0.7:5557"),
        ("tcp://0.0.0.0:5557", "engine.svc", "tcp://engine.svc:5557"),
        ("tcp://[::]:5557", "fd00::7", "tcp://[fd00::7]:5557"),
        ("tcp://:::5557", "[fd00::7]", "tcp://[fd00::7]:5557"),
        ("tcp://10.1.1.1:5557", "10.0.0.7", "tcp://10.1.1.1:5557"),
        ("ipc:///tmp/events", "10.0.0.7", "ipc:///tmp/events"),
        ("nonsense", "10.0.0.7", "nonsense"),
    ],
)
def test_an_address_that_means_everywhere_becomes_the_engine(
    endpoint: str, host: str, resolved: str
) -> None:
    assert resolve_endpoint(endpoint, host) == resolved


def test_a_captured_answer_is_understood() -> None:
    answer = json.loads(CAPTURE.read_text())

    assert parse_kv_event_sources(answer, "10.0.0.7") == [
        KvEventSource(0, "tcp://10.0.0.7:5557", "tcp://10.0.0.7:5558", b"kv-events")
    ]


def config(**changes: Any) -> dict[str, Any]:
    return {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": "tcp://*:1",
    } | changes


def test_ranks_come_in_order() -> None:
    answer = {str(rank): config(endpoint=f"tcp://*:{rank}") for rank in (10, 2, 0)}

    assert [source.dp_rank for source in parse_kv_event_sources(answer, "h")] == [0, 2, 10]


def test_a_replay_without_a_buffer_is_none() -> None:
    answer = {"0": config(replay_endpoint="tcp://*:2", buffer_steps=0)}

    assert parse_kv_event_sources(answer, "h") == [KvEventSource(0, "tcp://h:1", None, b"")]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({}, id="events-off"),
        pytest.param({"0": config(enable_kv_cache_events=False)}, id="disabled"),
        pytest.param({"0": config(publisher="null")}, id="null-publisher"),
        pytest.param({"0": config(endpoint=None)}, id="no-endpoint"),
        pytest.param({"0": 7}, id="rank-is-a-number"),
        pytest.param({"detail": "Not Found"}, id="an-error"),
        pytest.param(["x"], id="a-list"),
        pytest.param(None, id="nothing"),
    ],
)
def test_an_answer_without_sources_gives_none(answer: Any) -> None:
    assert parse_kv_event_sources(answer, "h") == []
