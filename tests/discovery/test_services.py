"""Which services are engines."""

import pytest

from lodestar_router.discovery.services import endpoints_of, service_of
from tests.discovery.objects import endpoints, service


@pytest.mark.parametrize(
    ("ports", "url"),
    [
        pytest.param((8000,), "http://llama:8000", id="port-asked-for"),
        pytest.param((9000, 8000), "http://llama:8000", id="among-others"),
        pytest.param((80, 55555), "http://llama:80", id="chart-s-service-listens-on-80"),
        pytest.param((), "http://llama:8000", id="none-listed"),
    ],
)
def test_service_is_asked_at_a_port_that_it_has(ports: tuple[int, ...], url: str) -> None:
    found = service_of(service(ports=ports), 8000)

    assert found is not None
    assert found.spec.url == url


def test_service_has_the_labels_of_its_pods() -> None:
    found = service_of(service(labels={"model": "of the service"}), 8000)

    assert found is not None
    assert found.spec.labels == {"environment": "test", "model": "llama"}


def test_service_of_another_namespace_is_named_with_it() -> None:
    found = service_of(service(), 8000, "other")

    assert found is not None
    assert found.spec.url == "http://llama.other:80"


def test_only_ready_addresses_count() -> None:
    assert endpoints_of(endpoints("llama", "10.0.0.2", "10.0.0.1")) == (
        "llama",
        "10.0.0.1,10.0.0.2",
    )
    assert endpoints_of(endpoints("llama")) is None
    assert endpoints_of({"metadata": {"name": "llama", "uid": "u"}, "subsets": None}) is None
