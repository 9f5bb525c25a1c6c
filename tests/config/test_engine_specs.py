"""Engines from a command line and from YAML entries."""

import pytest

from lodestar_router.config.engine_specs import engine_specs
from lodestar_router.core.types import EngineId, EngineSpec


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("http://a:1 http://b:2", id="spaces"),
        pytest.param("http://a:1,http://b:2", id="commas"),
        pytest.param(" http://a:1 ,\n http://b:2/, ", id="both-and-more"),
        pytest.param(["http://a:1", "http://b:2"], id="yaml-list"),
        pytest.param(["http://a:1, http://b:2"], id="yaml-list-of-a-line"),
        pytest.param(["http://a:1", {"url": "http://b:2"}], id="yaml-mixed"),
    ],
)
def test_urls_may_stand_in_any_of_the_usual_ways(raw: object) -> None:
    assert [spec.url for spec in engine_specs(raw)] == ["http://a:1", "http://b:2"]


def test_an_entry_says_all_that_a_spec_holds() -> None:
    entry = {
        "url": "http://a:8000/",
        "gpu": 4090,
        "model": "llama",
        "kv-events": ["tcp://*:5557", "tcp://*:5558"],
        "kv_replay": ["tcp://a:5657", "tcp://a:5658"],
        "scheduler_stats": "tcp://a:5559",
        "api_key_env": "KEY_A",
        "labels": {"zone": "a", "rack": 7},
    }

    assert engine_specs([entry]) == (
        EngineSpec(
            engine_id=EngineId("a:8000"),
            url="http://a:8000",
            gpu="4090",
            model="llama",
            kv_events=("tcp://*:5557", "tcp://*:5558"),
            kv_replay=("tcp://a:5657", "tcp://a:5658"),
            scheduler_stats=("tcp://a:5559",),
            api_key_env="KEY_A",
            labels={"zone": "a", "rack": "7"},
        ),
    )


def test_one_endpoint_needs_no_list_and_an_empty_value_says_nothing() -> None:
    entry = {"url": "http://a", "kv_events": "tcp://a:5557", "gpu": None, "labels": None}

    (spec,) = engine_specs([entry])

    assert spec.kv_events == ("tcp://a:5557",)
    assert (spec.gpu, spec.labels) == ("unknown", {})


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        pytest.param({"gpu": "A30"}, "engine 2: has no url", id="no-url"),
        pytest.param(
            {"url": "http://a", "gpus": "A30"},
            r"engine 2: unknown key 'gpus' \(did you mean gpu\?\)",
            id="misspelt",
        ),
        pytest.param(
            {"url": "http://a", "kv-events": "tcp://a:1", "kv_events": "tcp://a:1"},
            "engine 2: kv_events is given twice",
            id="two-spellings",
        ),
        pytest.param({"url": "a:8000"}, "engine 2: url: 'a:8000' does not start", id="bad-url"),
        pytest.param(
            {"url": "http://a", "kv_events": "a:1"}, "engine 2: kv_events: 'a:1'", id="bad-zmq"
        ),
        pytest.param(
            {"url": "http://a", "kv_events": "tcp://a:1", "kv_replay": ["tcp://a:2", "tcp://a:3"]},
            "engine 2: kv_replay must list as many",
            id="replay-of-another-rank",
        ),
        pytest.param({"url": "http://a", "gpu": True}, "gpu: must be text", id="gpu-a-bool"),
        pytest.param({"url": "http://a", "gpu": ""}, "gpu: must be text", id="gpu-empty"),
        pytest.param({"url": "http://a", "labels": ["x"]}, "labels: must be a map", id="labels"),
        pytest.param({"url": 8000}, "url: '8000' does not start", id="url-a-number"),
        pytest.param(["http://a"], "engine 2: must be a URL or a mapping", id="a-list"),
        pytest.param(None, "engine 2: must be a URL or a mapping", id="nothing"),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_wrong(entry: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        engine_specs(["http://first:1", entry])


def test_a_key_given_as_its_own_value_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="name of an environment variable") as refused:
        engine_specs([{"url": "http://a", "api_key_env": "sk-hunter2"}])

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("raw", [{"url": "http://a"}, 7, True])
def test_engines_must_be_a_list(raw: object) -> None:
    with pytest.raises(ValueError, match="must be a list of engines"):
        engine_specs(raw)
