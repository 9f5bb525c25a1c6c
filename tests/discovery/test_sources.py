"""Settings become sources; equal ones mean the same source."""

from typing import Any

import pytest

from lodestar_router.config import parse
from lodestar_router.discovery.kubernetes import KubernetesSettings
from lodestar_router.discovery.sources import sources_of


def keys(*argv: str) -> list[Any]:
    return [key for key, _ in sources_of(parse(argv, {}))]


def kubernetes(*argv: str) -> KubernetesSettings:
    _, settings = keys("--service-discovery", "k8s", *argv)
    assert isinstance(settings, KubernetesSettings)
    return settings


def test_equal_settings_are_the_same_source() -> None:
    argv = ("--service-discovery", "k8s", "--engines", "http://a", "--k8s-namespace", "llm")

    assert keys(*argv) == keys(*argv)
    assert keys(*argv) != keys(*argv, "--k8s-namespace", "other")


def test_named_engines_are_a_source_of_their_own() -> None:
    assert keys("--engines", "http://a") == [parse(["--engines", "http://a"], {}).engines]


@pytest.mark.parametrize(("seconds", "relist_s"), [("0", 60.0), ("30", 30.0), ("3600", 300.0)])
def test_everything_is_listed_anew_in_time(seconds: str, relist_s: float) -> None:
    settings = kubernetes("--k8s-watcher-timeout-seconds", seconds)

    assert settings.timings.relist_s == relist_s


def test_services_are_looked_for_if_asked() -> None:
    assert kubernetes("--k8s-service-discovery-type", "service-name").by_service
    assert not kubernetes().by_service
