"""`?id=`: a request for one engine and no other."""

from uuid import NAMESPACE_DNS, uuid5

import pytest

from lodestar_router.core.fleet import Fleet
from lodestar_router.core.types import EngineId, EngineSpec
from lodestar_router.errors import RequestError
from lodestar_router.proxy.engine_ids import engine_meant, without_id
from tests.fake_engine import FakeEngine
from tests.proxy.harness import Edge, Reply, completion, edge_before, post


async def ask(edge: Edge, query: str, **fields: str) -> Reply:
    client = await edge.client()
    await client.send(post(f"/v1/completions{query}", completion(**fields)))
    return await client.reply()


async def test_only_the_named_engine_is_asked_and_the_rest_of_the_query_goes_on() -> None:
    engines = [await FakeEngine().start() for _ in range(3)]
    async with edge_before(*engines) as edge:
        replies = [await ask(edge, "?a=1&id=e1&b=x%20y") for _ in range(4)]

        assert {reply.headers["x-lodestar-engine"] for reply in replies} == {"e1"}
        assert {request[0] for request in engines[1].requests} == {"/v1/completions?a=1&b=x+y"}
        assert engines[0].requests == engines[2].requests == []
        assert (await ask(edge, "?id=e2")).headers["x-lodestar-reason"] == "only"
    for engine in engines:
        await engine.stop()


async def test_a_pinned_request_is_not_sent_elsewhere_when_its_engine_fails() -> None:
    engines = [await FakeEngine().start() for _ in range(2)]
    engines[0].behaviour = "reset"
    async with edge_before(*engines) as edge:
        reply = await ask(edge, "?id=e0")

        assert reply.status == 502
        assert engines[1].requests == []
        assert edge.inflight() == 0
    for engine in engines:
        await engine.stop()


@pytest.mark.parametrize(
    ("query", "model", "status"),
    [
        pytest.param("?id=nobody", "tiny", 503, id="no-such-engine"),
        pytest.param("?id=e0", "other", 404, id="no-such-model"),
        pytest.param("?id=e0&id=e1", "tiny", 400, id="two"),
        pytest.param("?id=%ff", "tiny", 400, id="unreadable"),
        pytest.param("?id=", "tiny", 200, id="empty"),
        pytest.param("?identity=e0", "tiny", 200, id="another-parameter"),
    ],
)
async def test_what_cannot_be_pinned(query: str, model: str, status: int) -> None:
    engine = await FakeEngine().start()
    async with edge_before(engine) as edge:
        assert (await ask(edge, query, model=model)).status == status
        assert len(engine.requests) == (status == 200)
    await engine.stop()


def test_an_engine_is_known_by_its_pod_s_name_and_by_production_stack_s_id() -> None:
    fleet = Fleet()
    for number in range(2):
        fleet.add(
            EngineSpec(engine_id=EngineId(f"e{number}"), url="http://x", name=f"pod-{number}")
        )

    assert engine_meant(fleet, "e1") == "e1"
    assert engine_meant(fleet, "pod-1") == "e1"
    assert engine_meant(fleet, str(uuid5(NAMESPACE_DNS, "pod-0"))) == "e0"
    assert engine_meant(fleet, "") is None


def test_a_target_without_an_id_stays_as_it_is() -> None:
    assert without_id(b"/x?b=%20y&a") == (None, b"/x?b=%20y&a")
    with pytest.raises(RequestError):
        without_id(b"/x?" + b"a=1&" * 200)
