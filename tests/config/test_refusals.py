"""One clear line for whatever is wrong, wherever it stands."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lodestar_router.config import parse
from lodestar_router.config.settings import LOGICS
from tests.config.files import Write, refusal

ENGINES = ["--engines", "http://a:8000"]
NO_ENGINES = (
    "no engines: give --engines URL ..., --static-backends, --engines-file FILE or "
    "--service-discovery k8s"
)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], NO_ENGINES),
        (["--engines", ""], NO_ENGINES),
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
        (
            [*ENGINES, "--retry-statuses", "200"],
            "--retry-statuses: must be a whole number from 400 to 599, not '200'",
        ),
        (
            [*ENGINES, "--retry-budget", "101"],
            "--retry-budget: must be a number from 0 to 100, not '101'",
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
            [*ENGINES, "--policy-canary", "5"],
            "--policy-canary: must be a share such as 5% or 0.05, not '5'",
        ),
        (
            [*ENGINES, "--policy-mode", "canary", "--policy-canary", "x%"],
            "--policy-canary: must be a share such as 5% or 0.05, not 'x%'",
        ),
        (
            [*ENGINES, "--policy-mode", "shadow", "--routing-logic", "lmetric"],
            "--policy-mode and --policy-canary try out the learned policy: leave --routing-logic "
            "at lodestar and give --policy-fallback lmetric",
        ),
        (
            [*ENGINES, "--no-trainer=maybe"],
            "--no-trainer: must be true or false, not 'maybe'",
        ),
        (
            [*ENGINES, "--log-level", "inof"],
            "--log-level: 'inof' is no log level (did you mean info?); "
            "choose from critical, error, warning, info, debug, trace",
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
        f"choose from {', '.join(LOGICS)}"
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


@pytest.mark.parametrize("key", ["sk-hunter2", "hunter2 x"])
def test_a_key_pasted_for_its_variable_s_name_is_not_repeated(key: str) -> None:
    line = refusal([*ENGINES, "--api-key-env", key])

    assert line == "--api-key-env: must be the name of an environment variable"


def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated() -> None:
    line = refusal([*ENGINES, "--api-key-env", "KEY"], {"KEY": "hunter2\r\nX-Evil: 1"})

    assert line == "environment variable KEY holds no valid HTTP header value"


def test_an_unknown_variable_with_our_prefix_is_a_warning() -> None:
    config = parse(ENGINES, {"LODESTAR_ROUTER_PROT": "1", "LODESTAR_ROUTERS": "2"})

    assert config.warnings == (
        "environment variable LODESTAR_ROUTER_PROT is no setting "
        "(did you mean LODESTAR_ROUTER_PORT?)",
    )
