"""Precedence among the sources, and one clear line for whatever is wrong."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from lodestar_router.config import Config, parse
from lodestar_router.config.settings import SETTINGS
from lodestar_router.errors import ConfigError
from lodestar_router.policy.registry import POLICIES

ENGINES = ["--engines", "http://a:8000"]
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str) -> Path:
        path = tmp_path / "router.yaml"
        path.write_text(content)
        return path

    return write


def refusal(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        parse(argv, environ or {})
    line = str(refused.value)
    assert line
    assert "\n" not in line
    return line


def test_engines_alone_are_enough() -> None:
    config = parse(["--engines", "http://a:8000", "http://b:8000"], {})

    assert [spec.url for spec in config.engines] == ["http://a:8000", "http://b:8000"]
    assert (config.host, config.port, config.routing_logic) == ("0.0.0.0", 8001, "lodestar")
    assert config.max_body_bytes == 64 * 1024 * 1024
    assert config.metrics_interval_s == 0.25
    assert (config.kv_events, config.trainer, config.allow_mixed_models) == (True, True, False)
    assert (config.state_dir, config.seed, config.tokenizers) == (None, None, {})
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


EVERY_SETTING = {
    "allow-mixed-models": "true",
    "host": "127.0.0.1",
    "port": "9000",
    "max-body-mib": "8",
    "retries": "3",
    "connect-timeout": "1.5",
    "first-byte-timeout": "2",
    "idle-timeout": "3",
    "total-timeout": "4",
    "routing-logic": "lmetric",
    "tokenizer": "llama=models/llama",
    "seed": "7",
    "metrics-interval": "1",
    "no-kv-events": "true",
    "no-trainer": "true",
    "log-level": "debug",
}


def check_every_setting(config: Config) -> None:
    assert config.allow_mixed_models is True
    assert (config.host, config.port) == ("127.0.0.1", 9000)
    assert config.max_body_bytes == 8 * 1024 * 1024
    assert config.retries == 3
    assert (config.connect_timeout_s, config.first_byte_timeout_s) == (1.5, 2.0)
    assert (config.idle_timeout_s, config.total_timeout_s) == (3.0, 4.0)
    assert config.routing_logic == "lmetric"
    assert config.tokenizers == {"llama": "models/llama"}
    assert (config.seed, config.metrics_interval_s) == (7, 1.0)
    assert (config.kv_events, config.trainer) == (False, False)
    assert config.log_level == "debug"


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


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "no engines: give --engines URL ... or --engines-file FILE"),
        (["--engines", ""], "no engines: give --engines URL ... or --engines-file FILE"),
        (["--engines", "a:80"], "--engines: 'a:80' does not start with http:// or https://"),
        (["--engines", "http://a", "http://A:80/"], "engine a:80 is given 2 times"),
        ([*ENGINES, "--prot", "1"], "unknown flag --prot (did you mean --port?)"),
        ([*ENGINES, "--frobnicate=x"], "unknown flag --frobnicate"),
        (["http://a"], "an argument belongs to no flag; engines are given as --engines URL ..."),
        ([*ENGINES, "--port"], "--port: expected one argument"),
        (["--engines"], "--engines: expected at least one argument"),
        ([*ENGINES, "--port", "x"], "--port: must be a whole number from 0 to 65535, not 'x'"),
        ([*ENGINES, "--port=-1"], "--port: must be a whole number from 0 to 65535, not '-1'"),
        (
            [*ENGINES, "--port", "80.5"],
            "--port: must be a whole number from 0 to 65535, not '80.5'",
        ),
        ([*ENGINES, "--retries", "11"], "--retries: must be a whole number from 0 to 10, not '11'"),
        (
            [*ENGINES, "--metrics-interval", "0"],
            "--metrics-interval: must be from 0.01 to 3600 seconds, not '0'",
        ),
        (
            [*ENGINES, "--idle-timeout", "nan"],
            "--idle-timeout: must be a number of seconds, not 'nan'",
        ),
        (
            [*ENGINES, "--idle-timeout", "5m"],
            "--idle-timeout: must be a number of seconds, not '5m'",
        ),
        (
            [*ENGINES, "--no-trainer=maybe"],
            "--no-trainer: must be true or false, not 'maybe'",
        ),
        (
            [*ENGINES, "--log-level", "inof"],
            "--log-level: 'inof' is no log level (did you mean info?); "
            "choose from critical, error, warning, info, debug",
        ),
        (
            [*ENGINES, "--tokenizer", "m=a", "m=b"],
            "--tokenizer: two tokenizers for model 'm': 'a' and 'b'",
        ),
        (
            [*ENGINES, "--tokenizer", "a", "b"],
            "--tokenizer: two tokenizers for all models: 'a' and 'b'",
        ),
        (
            [*ENGINES, "--tokenizer", "m="],
            "--tokenizer: must be PATH_OR_ID or MODEL=PATH_OR_ID, not 'm='",
        ),
        ([*ENGINES, "--host", "a b"], "--host: must be a host name or address, not 'a b'"),
        ([*ENGINES, "--host", ""], "--host: must be text, not ''"),
        ([*ENGINES, "--state-dir", "setup.cfg"], "--state-dir: 'setup.cfg' is no directory"),
        (
            [*ENGINES, "--api-key-env", "UNSET"],
            "engine a:8000: its key's variable UNSET is not set",
        ),
        (
            [*ENGINES, "--config", "nowhere.yaml"],
            "nowhere.yaml: cannot be read: No such file or directory",
        ),
        (
            ["--engines-file", "nowhere.yaml"],
            "nowhere.yaml: cannot be read: No such file or directory",
        ),
    ],
)
def test_a_wrong_command_line_gets_one_clear_line(
    argv: Sequence[str], line: str, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    monkeypatch.chdir(pytestconfig.rootpath)

    assert refusal(argv) == line


def test_an_unknown_policy_gets_the_list_of_them() -> None:
    line = refusal([*ENGINES, "--routing-logic", "round_robin"])

    assert line == (
        "--routing-logic: 'round_robin' is no policy (did you mean roundrobin?); "
        f"choose from {', '.join(POLICIES)}"
    )


def test_a_wrong_variable_is_named() -> None:
    line = refusal(ENGINES, {"LODESTAR_ROUTER_MAX_BODY_MIB": "64MB"})

    assert line == (
        "LODESTAR_ROUTER_MAX_BODY_MIB: must be a whole number from 1 to 4096, not '64MB'"
    )


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("prot: 1", "{}: unknown setting 'prot' (did you mean port?)"),
        ("max_body: 1", "{}: unknown setting 'max_body' (did you mean max-body-mib?)"),
        ("config: x.yaml", "{}: a config file cannot name another one"),
        ("port: 1\nport: 2", "{}: line 2 'port' is given twice"),
        ("log-level: info\nlog_level: info", "{}: log-level is given twice"),
        ("port: true", "{}: port: must be a whole number from 0 to 65535, not True"),
        ("port: [1]", "{}: port: must be a whole number from 0 to 65535, not [1]"),
        ("host: on", "{}: host: must be text, not True"),
        ("idle_timeout: true", "{}: idle_timeout: must be a number of seconds, not True"),
        ("no-trainer: 2", "{}: no-trainer: must be true or false, not 2"),
        ("engines: {a: b}", "{}: engines: must be a list of engines, not {{'a': 'b'}}"),
        ("engines:\n- url: http://x\n- gpu: A30", "{}: engines: engine 2: has no url"),
        ("tokenizer: {m: [1]}", "{}: tokenizer: must be text, not [1]"),
        ("- a\n- b", "{}: must be a mapping of names to values"),
        ("port: 1\n  host: x", "{}: line 2 mapping values are not allowed here"),
        ("port: &a [*b]", "{}: line 1 found undefined alias 'b'"),
        ("port: !!python/object:os.x 1", None),
        ("port: \x01", None),
    ],
)
def test_a_wrong_config_file_gets_one_clear_line(
    write: Write, content: str, line: str | None
) -> None:
    path = write(content)

    told = refusal(["--config", str(path), *([] if "engines" in content else ENGINES)])

    assert told.startswith(str(path)) if line is None else told == line.format(path)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("engine: []", "{}: unknown key 'engine' (did you mean engines?); engines stand under"),
        ("engines: []", "no engines"),
        ("", "no engines"),
        ("engines:\n- {url: http://a, kv_event: x}", "{}: engine 1: unknown key 'kv_event'"),
        ("engines:\n- http://a\n- url: http://a:80", "engine a:80 is given 2 times"),
        ("- http://a", "{}: must be a mapping of names to values"),
    ],
)
def test_a_wrong_engines_file_gets_one_clear_line(write: Write, content: str, line: str) -> None:
    path = write(content)

    assert refusal(["--engines-file", str(path)]).startswith(line.format(path))


def test_a_file_that_is_no_text_or_no_file_gets_one_clear_line(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\xd8")

    assert refusal(["--config", str(binary)]) == f"{binary}: is not UTF-8 text"
    assert refusal(["--config", str(tmp_path)]) == f"{tmp_path}: cannot be read: Is a directory"


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


@pytest.mark.parametrize("key", ["sk-hunter2", "hunter2 x"])
def test_a_key_pasted_for_its_variable_s_name_is_not_repeated(key: str) -> None:
    line = refusal([*ENGINES, "--api-key-env", key])

    assert line == "--api-key-env: must be the name of an environment variable"


def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated() -> None:
    line = refusal([*ENGINES, "--api-key-env", "KEY"], {"KEY": "hunter2\r\nX-Evil: 1"})

    assert line == "environment variable KEY holds no valid HTTP header value"


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


def test_an_unknown_variable_with_our_prefix_is_a_warning() -> None:
    config = parse(ENGINES, {"LODESTAR_ROUTER_PROT": "1", "LODESTAR_ROUTERS": "2"})

    assert config.warnings == (
        "environment variable LODESTAR_ROUTER_PROT is no setting "
        "(did you mean LODESTAR_ROUTER_PORT?)",
    )


def test_effective_settings_are_plain_json(tmp_path: Path) -> None:
    config = parse([*ENGINES, "--state-dir", str(tmp_path)], {})

    effective = config.effective()

    assert json.loads(json.dumps(effective)) == effective
    assert effective["state_dir"] == str(tmp_path)
    assert effective["engines"][0]["url"] == "http://a:8000"
    assert {s.field for s in SETTINGS} - {"config", "engines_file"} == set(effective) - {"emulated"}


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
