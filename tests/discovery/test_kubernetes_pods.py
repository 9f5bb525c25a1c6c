"""Pods through a real watch: what is shown is what there is, whatever goes wrong."""

import asyncio
import json
import time

from lodestar_router.discovery.kubernetes import PodSource
from tests.discovery.fake_api import FakeApiServer
from tests.discovery.objects import pod
from tests.discovery.rig import RELISTING, following, until


async def test_pods_come_and_go_by_events_alone(server: FakeApiServer) -> None:
    server.put("pods", pod("a", ip="10.0.0.1"))
    async with following(server) as it:
        await until(lambda: it.shows("a"))

        server.put("pods", pod("b", ip="10.0.0.2", ready=False))
        await until(lambda: it.shows("a", "b"))
        assert it.engines["b"].not_ready
        server.put("pods", pod("b", ip="10.0.0.2"))
        await until(lambda: not it.engines["b"].not_ready)
        server.put("pods", pod("a", ip="10.0.0.1", deleted=True))
        await until(lambda: it.engines["a"].not_ready == "terminating")
        server.delete("pods", "a")
        await until(lambda: it.shows("b"))

        assert server.calls == {"list pods": 1, "watch pods": 1}


async def test_only_pods_of_the_selector_are_asked_for(server: FakeApiServer) -> None:
    server.put("pods", pod("a"))
    server.put("pods", pod("other", ip="10.0.0.2", labels={"environment": "router"}))
    async with following(server) as it:
        await until(lambda: it.shows("a"))

        server.put("pods", pod("other", ip="10.0.0.2", labels={"environment": "router", "x": "y"}))
        server.put("pods", pod("b", ip="10.0.0.3"))
        await until(lambda: it.shows("a", "b"))

    assert all(query["labelSelector"] == "environment=test" for _, _, query in server.requests)


async def test_nothing_is_asked_that_the_chart_s_role_forbids(server: FakeApiServer) -> None:
    server.put("pods", pod("a"))
    async with following(server) as it:
        await until(lambda: it.shows("a"))

    assert {(method, path) for method, path, _ in server.requests} == {
        ("GET", "/api/v1/namespaces/llm/pods")
    }


async def test_all_pages_of_a_list_are_read(server: FakeApiServer) -> None:
    server.page = 3
    for number in range(8):
        server.put("pods", pod(f"p{number}", ip=f"10.0.0.{number}"))
    async with following(server) as it:
        await until(lambda: len(it.engines) == 8)

    assert server.calls["list pods"] == 3


async def test_deletion_that_was_never_told_is_found_by_the_next_list(
    server: FakeApiServer,
) -> None:
    server.put("pods", pod("a", ip="10.0.0.1"))
    server.put("pods", pod("ghost", ip="10.0.0.2"))
    async with following(server, timings=RELISTING) as it:
        await until(lambda: it.shows("a", "ghost"))

        server.lose = True
        server.delete("pods", "ghost")

        await until(lambda: it.shows("a"))


async def test_deletion_while_the_watch_is_down_leaves_no_ghost(server: FakeApiServer) -> None:
    server.put("pods", pod("a", ip="10.0.0.1"))
    server.put("pods", pod("ghost", ip="10.0.0.2"))
    async with following(server) as it:
        await until(lambda: it.shows("a", "ghost"))

        await server.stop()
        server.lose = True  # its history is lost too
        server.delete("pods", "ghost")
        server.lose = False
        server.compact()
        await server.start()

        await until(lambda: it.shows("a"))


async def test_evicted_pod_whose_address_is_cleared_is_no_ghost(server: FakeApiServer) -> None:
    server.put("pods", pod("a"))
    async with following(server) as it:
        await until(lambda: it.shows("a"))

        server.put("pods", pod("a", ip="", phase="Failed", ready=False))

        await until(lambda: it.shows())


async def test_dead_node_holds_its_pods_though_their_containers_look_ready(
    server: FakeApiServer,
) -> None:
    server.put("pods", pod("a"))
    async with following(server) as it:
        await until(lambda: it.shows("a"))

        dead = pod("a", ready=False)
        assert dead["status"]["containerStatuses"][0]["ready"]
        server.put("pods", dead)

        await until(lambda: it.engines["a"].not_ready == "pod not ready")


async def test_address_that_another_pod_took_over_is_the_ready_one_s(
    server: FakeApiServer,
) -> None:
    server.put("pods", pod("old", ip="10.0.0.1", uid="u1"))
    async with following(server) as it:
        await until(lambda: it.shows("old"))

        server.put("pods", pod("old", ip="10.0.0.1", uid="u1", deleted=True))  # its node is gone
        server.put("pods", pod("new", ip="10.0.0.1", uid="u2", created="2026-02-01T00:00:00Z"))
        await until(lambda: it.shows("new"))
        assert it.engines["new"].uid == "u2"
        server.delete("pods", "old")
        await asyncio.sleep(0.05)

        assert it.shows("new")


async def test_pod_of_a_stateful_set_comes_back_as_another_engine(server: FakeApiServer) -> None:
    server.put("pods", pod("vllm-0", uid="u1"))
    async with following(server) as it:
        await until(lambda: it.shows("vllm-0"))

        server.put("pods", pod("vllm-0", uid="u2"))

        await until(lambda: [engine.uid for engine in it.source.current()] == ["u2"])


async def test_watch_goes_on_where_it_was_after_the_server_ended_it(
    server: FakeApiServer,
) -> None:
    server.put("pods", pod("a", ip="10.0.0.1"))
    async with following(server) as it:
        await until(lambda: it.shows("a"))
        server.put("pods", pod("b", ip="10.0.0.2"))
        await until(lambda: it.shows("a", "b"))

        server.close_watches()
        await until(lambda: server.calls["watch pods"] == 2)
        server.put("pods", pod("c", ip="10.0.0.3"))
        await until(lambda: it.shows("a", "b", "c"))

        assert server.calls["list pods"] == 1
        assert server.requests[-1][2]["resourceVersion"] == "102"


async def test_bookmark_moves_the_version_that_a_watch_goes_on_from(
    server: FakeApiServer,
) -> None:
    server.put("pods", pod("a"))
    server.bookmarks_s = 0.02
    async with following(server) as it:
        await until(lambda: it.shows("a"))
        for _ in range(5):
            server.put("services", {"metadata": {"name": "s", "uid": "s"}})
        await asyncio.sleep(0.1)
        changes = it.changes

        server.close_watches()
        await until(lambda: server.calls["watch pods"] == 2)

        assert server.requests[-1][2]["resourceVersion"] == "106"
        assert server.requests[-1][2]["allowWatchBookmarks"] in ("true", "True")
        assert it.changes == changes


async def test_expired_version_is_answered_with_a_new_list(server: FakeApiServer) -> None:
    server.put("pods", pod("a", ip="10.0.0.1"))
    async with following(server) as it:
        await until(lambda: it.shows("a"))

        server.lose = True
        server.delete("pods", "a")
        server.put("pods", pod("b", ip="10.0.0.2"))
        server.lose = False
        server.compact()
        server.close_watches()

        await until(lambda: it.shows("b"))
        assert server.calls["list pods"] == 2


async def test_watch_that_hangs_is_given_up_and_everything_listed_anew(
    server: FakeApiServer,
) -> None:
    server.put("pods", pod("a", ip="10.0.0.1"))
    server.silent = True
    async with following(server, timings=RELISTING) as it:
        await until(lambda: it.shows("a"))

        server.put("pods", pod("b", ip="10.0.0.2"))

        await until(lambda: it.shows("a", "b"))


async def test_watches_that_end_at_once_do_not_become_a_storm(server: FakeApiServer) -> None:
    server.put("pods", pod("a"))
    server.early_end_s = 0.0
    async with following(server) as it:
        await until(lambda: it.shows("a"))
        began_s = time.monotonic()
        before = server.calls["watch pods"]
        await asyncio.sleep(1.0)
        took_s = time.monotonic() - began_s

        # Longest backoff 0.1 s, at least half of it.
        assert server.calls["watch pods"] - before <= took_s / 0.05 + 1


async def test_malformed_lines_cost_a_list_and_nothing_else(server: FakeApiServer) -> None:
    server.put("pods", pod("a", ip="10.0.0.1"))
    async with following(server) as it:
        await until(lambda: it.shows("a"))
        lines = [
            b"{not json\n",
            b'"text"\n',
            b'{"type": "ADDED"}\n',
            b'{"type": "ADDED", "object": 3}\n',
            b'{"type": "EXPLODED", "object": {}}\n',
            b'{"type": "ERROR", "object": {"code": 500, "message": "boom"}}\n',
        ]
        for number, line in enumerate(lines, start=2):
            await until(lambda number=number: server.opened >= number - 1)  # type: ignore[misc]
            server.say(line)
            await until(lambda number=number: server.calls["list pods"] >= number)  # type: ignore[misc]

        server.put("pods", pod("b", ip="10.0.0.2"))
        await until(lambda: it.shows("a", "b"))


async def test_pod_that_cannot_be_read_disturbs_no_other(server: FakeApiServer) -> None:
    server.put("pods", pod("a", ip="10.0.0.1"))
    server.put("pods", pod("odd", ip="where?"))
    async with following(server) as it:
        await until(lambda: it.shows("a"))

        server.put("pods", pod("a", ip="nowhere"))  # keeps what was known of it
        server.put("pods", pod("b", ip="10.0.0.2"))
        await until(lambda: it.shows("a", "b"))

        assert it.engines["a"].spec.url == "http://10.0.0.1:8000"


async def test_event_longer_than_any_object_is_survived(server: FakeApiServer) -> None:
    server.put("pods", pod("a", ip="10.0.0.1"))
    async with following(server) as it:
        await until(lambda: server.opened == 1)

        big = {"type": "ADDED", "object": pod("big", annotations={"x": "y" * 6_000_000})}
        server.say(json.dumps(big).encode() + b"\n")
        await until(lambda: server.calls["list pods"] >= 2)
        server.put("pods", pod("b", ip="10.0.0.2"))

        await until(lambda: it.shows("a", "b"))


async def test_server_that_is_down_at_the_start_is_asked_until_it_answers(
    server: FakeApiServer,
) -> None:
    server.put("pods", pod("a"))
    await server.stop()
    async with following(server) as it:
        await asyncio.sleep(0.2)
        assert not it.source.synced

        await server.start()

        await until(lambda: it.source.synced and it.shows("a"))


async def test_server_that_goes_down_takes_no_engine_away(server: FakeApiServer) -> None:
    server.put("pods", pod("a", ip="10.0.0.1"))
    async with following(server, timings=RELISTING) as it:
        await until(lambda: it.shows("a"))

        server.down = True
        server.close_watches()
        await until(lambda: server.calls["list pods"] > 3)
        assert it.shows("a")
        server.down = False
        server.put("pods", pod("b", ip="10.0.0.2"))

        await until(lambda: it.shows("a", "b"))


async def test_list_that_hangs_is_given_up(server: FakeApiServer) -> None:
    server.put("pods", pod("a"))
    server.slow_s = 3600.0
    async with following(server) as it:
        await until(lambda: server.calls["list pods"] == 1)
        server.slow_s = 0.0

        await until(lambda: it.shows("a"))


async def test_missing_right_is_said_and_asked_again(server: FakeApiServer) -> None:
    server.put("pods", pod("a"))
    server.forbidden = {"pods"}
    async with following(server) as it:
        assert isinstance(it.source, PodSource)
        trouble = it.source.reflectors[0]
        await until(lambda: "403 pods is forbidden" in trouble.trouble)

        server.forbidden = set()

        await until(lambda: it.shows("a"))
        assert trouble.trouble == ""


async def test_gpu_kind_of_the_node_is_asked_for_once(server: FakeApiServer) -> None:
    server.nodes = {"node-1": {"gpu": "A30"}}
    for number in range(3):
        server.put("pods", pod(f"p{number}", ip=f"10.0.0.{number}"))
    server.put("pods", pod("said", ip="10.0.0.9", labels={"lodestar.ai/gpu": "V100"}))
    async with following(server, gpu_node_label="gpu") as it:
        await until(lambda: len(it.engines) == 4 and it.engines["p0"].spec.gpu == "A30")

        assert {engine.spec.gpu for engine in it.engines.values()} == {"A30", "V100"}
        assert server.calls["get nodes"] == 1


async def test_nodes_that_may_not_be_asked_leave_the_kind_unknown(server: FakeApiServer) -> None:
    server.forbidden = {"nodes"}
    server.put("pods", pod("a"))
    async with following(server, gpu_node_label="gpu") as it:
        await until(lambda: it.shows("a") and server.calls["get nodes"] == 1)
        await asyncio.sleep(0.05)

        assert it.engines["a"].spec.gpu == "unknown"
