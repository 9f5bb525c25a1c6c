"""Precedence among the sources, and what the settings become."""

import json
import re
from pathlib import Path

import pytest

from lodestar_router.config import Config, parse
from lodestar_router.config.settings import SETTINGS
from lodestar_router.core.goal import DEFAULT_GOAL, Goal, Objective
from lodestar_router.policy.registry import POLICIES
from tests.config.files import Write

ENGINES = ["--engines", "http://a:8000"]

EVERY_SETTING = {
    "allow-mixed-models": "true",
    "host": "127.0.0.1",
    "port": "9000",
    "max-body-mib": "8",
    "tls-cert": "cert.pem",
    "tls-key": "key.pem",
    "tls-client-ca": "ca.pem",
    "engine-ca": "engine-ca.pem",
    "engine-cert": "mine.pem",
    "engine-key": "mine.key",
    "max-header-bytes": "32768",
    "max-headers": "100",
    "max-url-bytes": "4096",
    "max-json-depth": "64",
    "max-concurrent": "100",
    "queue-depth": "10",
    "queue-timeout": "2.5",
    "max-loop-lag": "0.5",
    "drain-timeout": "60",
    "drain-delay": "5",
    "retries": "3",
    "retry-statuses": "500,503",
    "retry-budget": "5",
    "resend-unanswered": "true",
    "circuit-failures": "8",
    "circuit-open": "0.5",
    "hang-timeout": "12",
    "connect-timeout": "1.5",
    "first-byte-timeout": "2",
    "idle-timeout": "3",
    "total-timeout": "4",
    "max-request-timeout": "60",
    "routing-logic": "lmetric",
    "objective": "goodput",
    "ttft-slo": "0.5",
    "tpot-slo": "0.05",
    "policy-fallback": "llmd_322",
    "explore-share": "2%",
    "explore-extra": "0.1",
    "tokenizer": "llama=models/llama",
    "seed": "7",
    "metrics-interval": "1",
    "no-kv-events": "true",
    "no-trainer": "true",
    "log-level": "debug",
    "log-format": "json",
    "log-stats": "true",
    "log-stats-interval": "5",
    "request-stats-window": "30",
    "root-path": "/vllm",
    "session-key": "X-User-Id",
    "kv-aware-threshold": "100",
    "prefix-min-match-length": "256",
}


def test_engines_alone_are_enough() -> None:
    config = parse(["--engines", "http://a:8000", "http://b:8000"], {})

    assert [spec.url for spec in config.engines] == ["http://a:8000", "http://b:8000"]
    assert (config.host, config.port, config.routing_logic) == ("0.0.0.0", 8001, "lodestar")
    assert config.max_body_bytes == 64 * 1024 * 1024
    assert config.metrics_interval_s == 0.25
    assert (config.kv_events, config.trainer, config.allow_mixed_models) == (True, True, False)
    assert (config.state_dir, config.seed, config.tokenizers) == (None, None, {})
    assert config.goal == DEFAULT_GOAL
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("flag", "environment", "file", "port"),
    [
        pytest.param("1", "2", "3", 1, id="flag-first"),
        pytest.param(None, "2", "3", 2, id="then-environment"),
        pytest.param(None, None, "3", 3, id="then-file"),
        pytest.param(None, None, None, 8001, id="then-default"),
        pytest.param(None, "  ", "3", 3, id="empty-variable-says-nothing"),
        pytest.param(None, None, "", 8001, id="empty-key-says-nothing"),
        pytest.param("1", "x", "y", 1, id="what-does-not-count-is-not-checked"),
    ],
)
def test_precedence(
    write: Write, flag: str | None, environment: str | None, file: str | None, port: int
) -> None:
    argv = [*ENGINES, "--config", str(write("" if file is None else f"port: {file}"))]
    argv += [] if flag is None else ["--port", flag]
    environ = {} if environment is None else {"LODESTAR_ROUTER_PORT": environment}

    assert parse(argv, environ).port == port


def check_every_setting(config: Config) -> None:
    assert config.allow_mixed_models is True
    assert (config.host, config.port) == ("127.0.0.1", 9000)
    assert config.max_body_bytes == 8 * 1024 * 1024
    assert (config.tls_cert, config.tls_key) == (Path("cert.pem"), Path("key.pem"))
    assert (config.tls_client_ca, config.engine_ca) == (Path("ca.pem"), Path("engine-ca.pem"))
    assert (config.engine_cert, config.engine_key) == (Path("mine.pem"), Path("mine.key"))
    assert (config.max_header_bytes, config.max_headers) == (32_768, 100)
    assert (config.max_url_bytes, config.max_json_depth) == (4096, 64)
    assert (config.max_concurrent, config.queue_depth) == (100, 10)
    assert (config.queue_timeout_s, config.max_loop_lag_s) == (2.5, 0.5)
    assert (config.drain_timeout_s, config.drain_delay_s) == (60.0, 5.0)
    assert (config.retries, config.retry_budget_ratio, config.resend_unanswered) == (3, 0.05, True)
    assert config.retry_statuses == {500, 503}
    assert (config.circuit_failures, config.circuit_open_s) == (8, 0.5)
    assert (config.hang_timeout_s, config.max_request_timeout_s) == (12.0, 60.0)
    assert (config.connect_timeout_s, config.first_byte_timeout_s) == (1.5, 2.0)
    assert (config.idle_timeout_s, config.total_timeout_s) == (3.0, 4.0)
    assert config.routing_logic == "lmetric"
    assert config.goal == Goal(objective=Objective.GOODPUT, ttft_slo_s=0.5, tpot_slo_s=0.05)
    assert config.policy_fallback == "llmd_322"
    assert (config.explore_share, config.explore_extra_s) == (0.02, 0.1)
    assert config.tokenizers == {"llama": "models/llama"}
    assert (config.seed, config.metrics_interval_s) == (7, 1.0)
    assert (config.kv_events, config.trainer) == (False, False)
    assert (config.log_level, config.log_format) == ("debug", "json")
    assert (config.log_stats, config.log_stats_interval_s) == (True, 5.0)
    assert config.request_stats_window_s == 30.0
    assert (config.root_path, config.session_key) == ("/vllm", "X-User-Id")
    assert (config.kv_aware_threshold_tokens, config.prefix_min_match_chars) == (100, 256)


def test_every_setting_is_a_flag() -> None:
    argv = [f"--{name}={value}" for name, value in EVERY_SETTING.items()]

    check_every_setting(parse([*ENGINES, *argv], {}))


def test_every_setting_is_an_environment_variable() -> None:
    environ = {
        "LODESTAR_ROUTER_" + name.upper().replace("-", "_"): value
        for name, value in EVERY_SETTING.items()
    }

    check_every_setting(parse([], {**environ, "LODESTAR_ROUTER_ENGINES": "http://a,http://b"}))


@pytest.mark.parametrize("separator", ["-", "_"])
def test_every_setting_is_a_key_of_the_file(write: Write, separator: str) -> None:
    lines = [f"{k.replace('-', separator)}: {v}" for k, v in EVERY_SETTING.items()]
    path = write("\n".join([*lines, "engines:", "  - http://a", "  - {url: http://b, gpu: A30}"]))

    config = parse(["--config", str(path)], {})

    check_every_setting(config)
    assert [(spec.url, spec.gpu) for spec in config.engines] == [
        ("http://a:80", "unknown"),
        ("http://b:80", "A30"),
    ]


@pytest.mark.parametrize(
    ("flags", "share"),
    [
        pytest.param("", 1.0, id="the-learned-policy-steers"),
        pytest.param("--policy-mode active", 1.0, id="so-it-does-when-told-to"),
        pytest.param("--policy-mode shadow", 0.0, id="in-the-shadow-it-steers-nothing"),
        pytest.param("--policy-mode canary", 0.05, id="a-canary-is-five-percent"),
        pytest.param("--policy-canary 10%", 0.1, id="a-share-makes-a-canary"),
        pytest.param("--policy-mode shadow --policy-canary 0.2", 0.2, id="a-share-that-is-given"),
    ],
)
def test_the_share_that_the_learned_policy_steers(flags: str, share: float) -> None:
    assert parse([*ENGINES, *flags.split()], {}).learned_share == share


def test_the_config_file_may_be_named_by_the_environment(write: Write) -> None:
    path = write("port: 5")

    assert parse(ENGINES, {"LODESTAR_ROUTER_CONFIG": str(path)}).port == 5


def test_a_flag_can_undo_what_file_and_environment_say(write: Write, tmp_path: Path) -> None:
    path = write(f"state-dir: {tmp_path}\nno-trainer: true")
    argv = [*ENGINES, "--config", str(path), "--state-dir", "", "--no-trainer=false"]

    config = parse(argv, {"LODESTAR_ROUTER_STATE_DIR": str(tmp_path)})

    assert (config.state_dir, config.trainer) == (None, True)


def test_engines_of_the_flag_replace_the_file_s_and_join_the_engines_file(
    write: Write, tmp_path: Path
) -> None:
    engines_file = tmp_path / "engines.yaml"
    engines_file.write_text("engines:\n  - url: http://c\n    gpu: A30\n")
    argv = ["--config", str(write("engines: http://b")), "--engines-file", str(engines_file)]

    config = parse([*argv, "--engines", "http://a"], {})

    assert [spec.engine_id for spec in config.engines] == ["a:80", "c:80"]


def test_repeated_flags_add_engines_and_tokenizers() -> None:
    argv = ["--engines", "http://a,http://b", "--engines", "http://c"]
    argv += ["--tokenizer", "m1=dir/a", "--tokenizer", "org/name", "m2=dir/b=c"]

    config = parse(argv, {})

    assert len(config.engines) == 3
    assert config.tokenizers == {"m1": "dir/a", "*": "org/name", "m2": "dir/b=c"}
    assert config.tokenizer_of("m1") == "dir/a"
    assert config.tokenizer_of("other") == "org/name"
    assert parse(ENGINES, {}).tokenizer_of("m1") is None


def test_keys_come_from_the_named_variables_and_appear_nowhere(write: Write) -> None:
    path = write("engines:\n- {url: http://b, api_key_env: KEY_B}")
    argv = [*ENGINES, "--engines-file", str(path), "--api-key-env", "LODESTAR_ROUTER_KEY"]
    environ = {"LODESTAR_ROUTER_KEY": "hunter2\n", "KEY_B": "hunter3"}

    config = parse(argv, environ)

    assert config.api_keys == {"a:8000": "hunter2", "b:80": "hunter3"}
    assert config.warnings == ()
    assert "hunter" not in repr(config)
    assert "hunter" not in json.dumps(config.effective())
    assert config.effective()["api_key_env"] == "LODESTAR_ROUTER_KEY"
    assert config.effective()["engines"][1]["api_key_env"] == "KEY_B"


def test_addresses_that_kubernetes_gives_a_service_of_our_name_are_no_settings() -> None:
    environ = {
        "LODESTAR_ROUTER_PORT": "tcp://10.0.0.1:80",
        "LODESTAR_ROUTER_SERVICE_HOST": "10.0.0.1",
        "LODESTAR_ROUTER_SERVICE_PORT": "80",
        "LODESTAR_ROUTER_SERVICE_PORT_HTTP": "80",
        "LODESTAR_ROUTER_PORT_80_TCP": "tcp://10.0.0.1:80",
        "LODESTAR_ROUTER_PORT_80_TCP_ADDR": "10.0.0.1",
        "LODESTAR_ROUTER_METRICS_PORT": "tcp://10.0.0.2:90",
    }

    config = parse(ENGINES, environ)

    assert (config.port, config.warnings) == (8001, ())


def test_effective_settings_are_plain_json(tmp_path: Path) -> None:
    config = parse([*ENGINES, "--state-dir", str(tmp_path)], {})

    effective = config.effective()

    assert json.loads(json.dumps(effective)) == effective
    assert effective["state_dir"] == str(tmp_path)
    assert effective["engines"][0]["url"] == "http://a:8000"
    fields = {s.field for s in SETTINGS if not s.does_nothing} - {"config", "engines_file"}
    assert fields == set(effective) - {"emulated"}


def test_help_is_grouped_and_says_units_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(["--help"], {})

    assert left.value.code == 0
    printed = capsys.readouterr().out
    for setting in SETTINGS:
        assert f"\n{setting.group}:\n" in printed
        (entry,) = re.findall(rf"\n  --{setting.name} (?:.|\n   )*", printed)
        assert f"(default: {setting.default or 'none'})" in " ".join(entry.split())
        assert setting.metavar is None or setting.metavar in entry
    for name in POLICIES:
        assert name in printed


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(["--version"], {})

    assert left.value.code == 0
    assert re.fullmatch(r"lodestar-router \d+\.\d+\.\d+\n", capsys.readouterr().out)
