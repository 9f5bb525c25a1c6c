"""The file that is followed: its forms, what it wins over, what it may not do."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lodestar_router.config import Config, parse
from lodestar_router.config.dynamic import LIVE
from lodestar_router.config.live import changed, shown_live, taken_over
from lodestar_router.config.settings import BY_NAME
from tests.config.files import refusal

Parse = Callable[..., Config]

YAML = """\
service_discovery: static
routing_logic: roundrobin
static_models:
  llama:
    static_backends: [http://a:8000, http://b:8000]
    static_model_type: chat
  phi:
    static_backends: [http://b:8000]
    static_model_type: completion
static_aliases:
  gpt: llama
"""
JSON = {
    "service_discovery": "static",
    "routing_logic": "roundrobin",
    "static_backends": "http://a:8000,http://b:8000,http://b:8000",
    "static_models": "llama,llama,phi",
    "static_model_types": "chat,chat,completion",
    "static_aliases": "gpt:llama",
}


@pytest.fixture
def following(tmp_path: Path) -> Parse:
    def following(content: object, *argv: str, **environ: str) -> Config:
        """Parse with a dynamic file, YAML if it is text."""
        form = "yaml" if isinstance(content, str) else "json"
        path = tmp_path / f"dynamic.{form}"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return parse([f"--dynamic-config-{form}", str(path), *argv], environ)

    return following


@pytest.mark.parametrize("content", [YAML, JSON], ids=["yaml", "json"])
def test_both_forms_say_the_same(following: Parse, content: object) -> None:
    config = following(content)

    assert [(spec.engine_id, spec.models) for spec in config.engines] == [
        ("a:8000", ("llama",)),
        ("b:8000", ("llama", "phi")),
    ]
    assert config.static_model_types == ("chat", "chat", "completion")
    assert config.static_aliases == {"gpt": "llama"}
    assert config.routing_logic == "roundrobin"
    assert config.dynamic_config is not None


def test_flat_lists_are_fine_in_yaml_too(following: Parse) -> None:
    config = following("static_backends: http://a\nstatic_models: llama")

    assert config.engines[0].models == ("llama",)


def test_models_without_backends_are_passed_over_and_types_count_if_all_have_one(
    following: Parse,
) -> None:
    config = following(
        "static_models:\n"
        "  llama: {static_backends: [http://a], static_model_type: chat}\n"
        "  phi: {static_backends: [http://b]}\n"
        "  later: {static_model_type: chat}\n"
    )

    assert [spec.models for spec in config.engines] == [("llama",), ("phi",)]
    assert config.static_model_types == ()


def test_what_has_no_effect_is_said_and_the_rest_applied(following: Parse) -> None:
    config = following({"static_backends": "http://a", "callbacks": "m.c", "session_key": "u"})

    assert [warning.split()[0] for warning in config.warnings] == ["--callbacks"]
    assert config.session_key == "u"
    assert shown_live(config)["session_key"] == "u"


def test_what_can_change_wins_over_flags_and_the_rest_gives_way(following: Parse) -> None:
    content = {"routing_logic": "roundrobin", "port": 9000, "host": "127.0.0.1"}

    config = following(
        content, "--engines", "http://a", "--routing-logic", "random", "--port", "8000"
    )

    assert (config.routing_logic, config.port, config.host) == ("roundrobin", 8000, "127.0.0.1")


def test_null_says_nothing(following: Parse) -> None:
    config = following({"static_backends": "http://a", "static_aliases": None})

    assert config.static_aliases == {}


def test_unknown_keys_are_reported_and_the_rest_applied(following: Parse) -> None:
    content = {"static_backends": "http://a", "routing_logik": "random", "config": "x", "a": 1}

    config = following(content)

    assert config.engines[0].engine_id == "a:80"
    assert [warning.partition(": ")[2] for warning in config.warnings] == [
        "'routing_logik' is no setting of this file (did you mean routing-logic?); left out",
        "'config' is no setting of this file; left out",
        "'a' is no setting of this file; left out",
    ]


@pytest.mark.parametrize(
    ("form", "content", "told"),
    [
        ("json", "{", "bad JSON: Expecting property name"),
        ("json", "[1]", "must be a mapping of names to values"),
        ("json", '{"routing_logic": "best"}', "routing_logic: 'best' is no policy"),
        ("yaml", "a: [", "line 1"),
        ("yaml", "static_models: {llama: x}", "static_models: 'llama' has no list"),
        ("yaml", "k8s_port: many", "k8s_port: must be a whole number"),
    ],
)
def test_a_file_that_is_wrong_gets_one_clear_line(
    tmp_path: Path, form: str, content: str, told: str
) -> None:
    path = tmp_path / "dynamic"
    path.write_text(content)

    line = refusal(["--engines", "http://a", f"--dynamic-config-{form}", str(path)])

    assert line.startswith(f"{path}: ")
    assert told in line


def test_two_files_exclude_each_other() -> None:
    line = refusal(["--dynamic-config-yaml", "a", "--dynamic-config-json", "b"])

    assert line == "--dynamic-config-yaml and --dynamic-config-json exclude each other"


def test_every_live_setting_is_a_setting() -> None:
    assert BY_NAME.keys() >= LIVE


def test_live_settings_are_taken_over_and_others_wait() -> None:
    running = parse(["--engines", "http://a", "--port", "1", "--retries", "2"], {})
    read = parse(
        ["--engines", "http://a", "http://b", "--port", "2", "--routing-logic", "random"], {}
    )

    config, waiting = taken_over(running, read)

    assert [spec.engine_id for spec in config.engines] == ["a:80", "b:80"]
    assert config.routing_logic == "random"
    assert (config.port, config.retries) == (1, 2)
    assert set(waiting) == {"port", "retries"}
    assert set(changed(running, config)) == {"engines", "routing-logic"}
    assert changed(running, running) == ()


def test_live_settings_are_shown_as_the_file_has_them(following: Parse) -> None:
    shown = shown_live(following(JSON))

    assert {key: shown[key] for key in JSON} == JSON
    assert json.loads(json.dumps(shown)) == shown
