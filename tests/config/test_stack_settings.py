"""Every flag of production-stack's router: taken, with its meaning, abbreviated too."""

import pytest

from lodestar_router.config import parse
from lodestar_router.config.abbreviations import STACK_FLAGS, expanded
from lodestar_router.config.settings import BY_NAME, SETTINGS
from tests.config.files import refusal

ENGINES = ["--engines", "http://a:8000"]
# What its Helm chart passes (deployment-router.yaml of vllm-stack 0.1.12), all options on.
CHART = """\
--host 0.0.0.0 --port 8000 --service-discovery k8s --k8s-namespace models
--k8s-service-discovery-type pod-ip --k8s-label-selector environment=test,release=test
--routing-logic kvaware --prefix-min-match-length 256 --session-key x-user-id --root-path /vllm
--engine-stats-interval 15 --request-stats-window 60 --log-stats --log-stats-interval 5
--routing-logic session --lmcache-controller-port 9000 --lmcache-controller-reply-port 9001
--lmcache-controller-heartbeat-port 9002 --otel-endpoint collector:4317
--otel-service-name router --otel-secure"""


def test_every_flag_of_the_other_router_is_one_here() -> None:
    assert set(STACK_FLAGS) <= BY_NAME.keys()


def test_what_its_chart_passes_is_understood() -> None:
    config = parse(CHART.split(), {})

    assert (config.port, config.k8s_namespace, config.root_path) == (8000, "models", "/vllm")
    assert (config.routing_logic, config.session_key) == ("session", "x-user-id")
    assert (config.prefix_min_match_chars, config.request_stats_window_s) == (256, 60.0)
    assert (config.log_stats, config.log_stats_interval_s) == (True, 5.0)
    assert config.metrics_interval_s == 0.25
    assert [warning.split()[0] for warning in config.warnings] == [
        "--engine-stats-interval", "--lmcache-controller-reply-port",
        "--lmcache-controller-heartbeat-port", "--otel-endpoint", "--otel-service-name",
        "--otel-secure",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--request-rewriter noop", []),
        ("--lmcache-controller-port 9000", []),
        ("--feature-gates SemanticCache=false,", []),
        ("--feature-gates SemanticCache,PIIDetection=maybe", []),
        (
            "--feature-gates SemanticCache=true,PIIDetection=false",
            ["--feature-gates has no effect: no gate opens anything here"],
        ),
        (
            "--callbacks my.hooks",
            [
                "--callbacks has no effect: no code of others is run in the router: put what it "
                "did into a proxy in front"
            ],
        ),
        (
            "--sentry-dsn https://k@sentry.io/1 --sentry-traces-sample-rate 0.1",
            ["--sentry-dsn has no effect: nothing is reported to Sentry; errors are in the log"],
        ),
        (
            "--semantic-cache-model m --semantic-cache-dir semantic_cache",
            [
                "--semantic-cache-model has no effect: there is no semantic cache: an answer to "
                "one user is never given to another"
            ],
        ),
    ],
)
def test_what_has_no_effect_is_said_in_one_line(flags: str, said: list[str]) -> None:
    assert list(parse([*ENGINES, *flags.split()], {}).warnings) == said


def test_router_may_have_no_engines_of_its_own() -> None:
    assert parse(["--service-discovery", "external-only"], {}).engines == ()


def test_reroute_attempts_are_retries() -> None:
    flags = ["--max-instance-failover-reroute-attempts", "3", "--retries", "2"]

    assert parse([*ENGINES, *flags], {}).retries == 3
    assert parse([*ENGINES, "--max-instance-failover-reroute-attempts=0"], {}).retries == 0
    assert parse(ENGINES, {}).retries == 1


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        pytest.param("--engine=15", "--engine-stats-interval=15", id="one-flag-there"),
        pytest.param("--max=3", "--max-instance-failover-reroute-attempts=3", id="several-here"),
        pytest.param("--session-k", "--session-key", id="cut-short"),
        pytest.param("--port", "--port", id="whole"),
        pytest.param("--log", "--log", id="several-there"),
        pytest.param("--objec", "--objec", id="ours-only"),
        pytest.param("--", "--", id="end-of-flags"),
        pytest.param("x", "x", id="value"),
    ],
)
def test_beginning_of_a_flag_means_what_it_means_there(given: str, meant: str) -> None:
    assert expanded([given, "--", "--engine"], BY_NAME) == [meant, "--", "--engine"]


def test_every_unambiguous_beginning_is_taken() -> None:
    names = (*STACK_FLAGS, "help", "version")
    for flag in STACK_FLAGS:
        for length in range(1, len(flag)):
            short = flag[:length]
            if [name for name in names if name.startswith(short)] == [flag]:
                assert expanded([f"--{short}"], BY_NAME) == [f"--{flag}"], short


def test_last_one_wins_in_either_form() -> None:
    config = parse(
        [*ENGINES, "--port=1", "--port", "2", "--po", "3", "--log-l=debug", "--log-level=trace"],
        {},
    )

    assert (config.port, config.log_level) == (3, "trace")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--routing-logic session", "--routing-logic session needs --session-key"),
        (
            "--sentry-traces-sample-rate 2",
            "--sentry-traces-sample-rate: must be a number from 0 to 1, not '2'",
        ),
        (
            "--engine-stats-interval 0",
            "--engine-stats-interval: must be from 0.001 to 86400 seconds, not '0'",
        ),
        (
            "--request-rewriter mine",
            "--request-rewriter: 'mine' is no request rewriter; choose from noop",
        ),
        ("--root-path /a//b", "--root-path: must be a path such as /vllm, not '/a//b'"),
    ],
)
def test_what_is_wrong_there_is_one_line_here(flags: str, line: str) -> None:
    assert refusal([*ENGINES, *flags.split()]) == line


def test_settings_without_effect_are_told_apart() -> None:
    for setting in SETTINGS:
        assert bool(setting.field) != bool(setting.does_nothing), setting.name
