"""production-stack's static lists."""

import pytest

from lodestar_router.config import parse
from tests.config.files import refusal

BACKENDS = "http://a:8000,http://b:8000,http://b:8000"


def argv(**flags: str) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]


def test_one_engine_per_url_with_all_its_models() -> None:
    config = parse(
        argv(
            service_discovery="static",
            static_backends=BACKENDS,
            static_models="llama,llama,sql",
            static_model_labels="prefill,decode,decode",
        ),
        {},
    )

    a, b = config.engines
    assert (a.engine_id, a.models, a.labels) == ("a:8000", ("llama",), {"model": "prefill"})
    assert (b.engine_id, b.models, b.labels) == ("b:8000", ("llama", "sql"), {"model": "decode"})


def test_engines_are_asked_for_their_models_if_none_are_given() -> None:
    (engine,) = parse(argv(static_backends="http://[::1]:80"), {}).engines

    assert engine.url == "http://[::1]:80"
    assert engine.models == ()
    assert engine.labels == {"model": "default"}


def test_named_engines_and_static_backends_go_together() -> None:
    config = parse(["--engines", "http://c:80", *argv(static_backends="http://a:80")], {})

    assert [spec.engine_id for spec in config.engines] == ["c:80", "a:80"]


def test_aliases_may_stand_for_models_with_colons() -> None:
    config = parse(argv(static_backends="http://a", static_aliases="gpt:llama:8b, small : phi"), {})

    assert config.static_aliases == {"gpt": "llama:8b", "small": "phi"}


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"static_models": "llama"},
            "--static-models has 1 entries, --static-backends 3",
        ),
        (
            {"static_model_labels": "a,b"},
            "--static-model-labels has 2 entries, --static-backends 3",
        ),
        (
            {"static_backend_health_checks": "true"},
            "--static-backend-health-checks needs --static-models and --static-model-types",
        ),
        (
            {
                "static_backend_health_checks": "true",
                "static_models": "a,b,c",
                "static_model_types": "chat,chat,poem",
            },
            "--static-model-types: 'poem' is none of chat, completion",
        ),
        ({"static_aliases": "gpt"}, "--static-aliases: must be ALIAS:MODEL, not 'gpt'"),
        ({"static_aliases": "a:x,a:y"}, "--static-aliases: two models for alias 'a'"),
    ],
)
def test_lists_that_do_not_fit_together_are_refused(flags: dict[str, str], line: str) -> None:
    assert refusal(argv(static_backends=BACKENDS, **flags)).startswith(line)


def test_url_that_is_none_is_refused() -> None:
    assert refusal(argv(static_backends="a:80")).startswith("--static-backends: 'a:80' does not")


def test_kubernetes_needs_no_engines_and_takes_no_static_ones() -> None:
    config = parse(
        argv(
            service_discovery="k8s",
            k8s_service_discovery_type="",
            k8s_label_selector="environment in (test, prod),!canary",
            static_backends="http://a",
        ),
        {},
    )

    assert config.engines == ()
    assert config.k8s_service_discovery_type == "pod-ip"
    assert config.k8s_label_selector == "environment in (test, prod),!canary"
    assert (config.k8s_namespace, config.k8s_port) == ("default", 8000)


def test_keys_of_engines_that_are_yet_to_be_found() -> None:
    environ = {"VLLM_API_KEY": "hunter2", "KEY": "hunter3"}

    config = parse(argv(service_discovery="k8s", api_key_env="KEY"), environ)

    assert (config.api_key, config.probe_key) == ("hunter3", "hunter2")
    assert "hunter" not in repr(config) + str(config.effective())
    assert refusal(argv(service_discovery="k8s", api_key_env="KEY")) == (
        "--api-key-env: variable KEY is not set"
    )
