"""Services and their endpoints through real watches."""

from tests.discovery.fake_api import FakeApiServer
from tests.discovery.objects import endpoints, service
from tests.discovery.rig import following, until


async def test_service_takes_requests_while_something_ready_is_behind_it(
    server: FakeApiServer,
) -> None:
    server.put("services", service("llama"))
    server.put("endpoints", endpoints("llama"))
    async with following(server, by_service=True) as it:
        await until(lambda: it.source.synced)
        assert it.engines["llama"].not_ready == "service has no ready endpoint"

        server.put("endpoints", endpoints("llama", "10.0.0.1"))  # the service does not change
        await until(lambda: it.engines["llama"].not_ready == "")
        server.put("endpoints", endpoints("llama"))
        await until(lambda: it.engines["llama"].not_ready != "")
        server.delete("endpoints", "llama")
        server.put("services", service("mistral"))
        await until(lambda: it.shows("llama", "mistral"))
        server.delete("services", "llama")

        await until(lambda: it.shows("mistral"))


async def test_models_are_read_again_when_other_pods_are_behind_a_service(
    server: FakeApiServer,
) -> None:
    server.put("services", service("llama"))
    server.put("endpoints", endpoints("llama", "10.0.0.1"))
    async with following(server, by_service=True) as it:
        await until(lambda: it.source.synced)
        revision = it.engines["llama"].revision

        server.put("endpoints", endpoints("llama", "10.0.0.2"))

        await until(lambda: it.engines["llama"].revision != revision)


async def test_nothing_is_asked_that_the_chart_s_role_forbids(server: FakeApiServer) -> None:
    server.put("services", service("llama"))
    async with following(server, by_service=True) as it:
        await until(lambda: it.source.synced)

    assert {(method, path) for method, path, _ in server.requests} == {
        ("GET", "/api/v1/namespaces/llm/services"),
        ("GET", "/api/v1/namespaces/llm/endpoints"),
    }
