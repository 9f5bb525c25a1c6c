"""The router in front of two unequal real vLLM engines, as its users run it.

Run by `make test-vllm`. Numbers depend on the machine, so what is asserted holds
on any: nothing fails, what the router believes is true, and the cache is used.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lodestar_router.policy.registry import POLICIES
from perf.serving.conversations import Chats, SharedPrefixCompletions
from perf.serving.experiment import COMPARED, cool, measure
from perf.serving.loads import WARM_UP, OwnLoad, loads
from perf.serving.records import LoadResult
from perf.serving.report import table
from tests.e2e.engines import VllmEngine
from tests.e2e.router import RouterProcess, routed
from tests.e2e.tiny_model import MODEL_NAME

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(600)]

SEED = 1
STATS_AGE_S = 5.0  # of a scheduler-stats report on an idle engine
HIT_RATIO_GAIN = 0.1  # "well above": of prompt tokens, absolute

# `vllm bench serve` takes ten seconds to start: policies that are not COMPARED are
# tried with our own client alone.
OWN_LOADS = ("chat", "completions")

NEEDED_FLAGS = {"session": ("--session-key", "x-user-id")}  # by policy

Serve = Callable[[str], Mapping[str, LoadResult]]


@pytest.fixture(scope="module")
def serve(engines: list[VllmEngine], vllm_python: Path, workdir: Path) -> Iterator[Serve]:
    """All loads under one policy, run once per policy; prints the table at the end."""
    served: dict[str, dict[str, LoadResult]] = {}
    traffic = loads("short", vllm_python=vllm_python, tokenizer=engines[0].model_dir)

    def run(policy: str) -> Mapping[str, LoadResult]:
        if policy not in served:
            flags = NEEDED_FLAGS.get(policy, ())
            with routed(policy, engines, workdir / policy, *flags) as router:
                WARM_UP.run(router.url, MODEL_NAME, SEED)
                served[policy] = {
                    name: measure(name, load, router, engines, seed=SEED)
                    for name, load in traffic.items()
                    if policy in COMPARED or name in OWN_LOADS
                }
        return served[policy]

    yield run
    flat = [result for by_load in served.values() for result in by_load.values()]
    (workdir / "table.txt").write_text(f"{table(flat, 'roundrobin')}\n")


@pytest.fixture(scope="module")
def router(engines: list[VllmEngine], workdir: Path) -> Iterator[RouterProcess]:
    """A router with the default policy."""
    with routed("lodestar", engines, workdir / "router") as started:
        yield started


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_of_every_load_is_answered(policy: str, serve: Serve) -> None:
    results = serve(policy)

    assert {name: result.errors for name, result in results.items() if result.failed} == {}
    assert all(result.requests > 0 for result in results.values())
    assert all(result.prompt_tokens > 0 for result in results.values())


def test_lodestar_finds_more_in_the_prefix_cache_than_roundrobin(serve: Serve) -> None:
    learned, blind = hit_ratio(serve("lodestar")), hit_ratio(serve("roundrobin"))

    assert learned > blind + HIT_RATIO_GAIN


def test_expected_cached_tokens_are_what_the_engine_reports(
    router: RouterProcess, engines: list[VllmEngine]
) -> None:
    chats = Chats(
        sessions=10, turns=6, system_prompts=3, system_words=150, turn_words=150,
        answer_tokens=16, mean_pause_s=0.5,
    )  # fmt: skip
    completions = SharedPrefixCompletions(
        requests=90, prefixes=9, prefix_words=600, suffix_words=80, answer_tokens=8, per_s=8
    )

    results = [
        measure(name, OwnLoad(traffic), router, engines, seed=SEED)
        for name, traffic in (("chat", chats), ("completions", completions))
    ]

    compared = sum(result.expected_compared or 0 for result in results)
    equal = sum(result.expected_equal or 0 for result in results)
    assert compared == sum(result.requests for result in results) == 150
    assert equal >= 0.99 * compared, [result.differing for result in results]


def test_scheduler_stats_are_the_load_view_and_are_fresh(
    router: RouterProcess, engines: list[VllmEngine]
) -> None:
    for engine in engines:
        engine.step()
    time.sleep(1.0)

    loads_seen = [router.engine(engine)["load"] for engine in engines]

    assert [load["source"] for load in loads_seen] == ["scheduler_stats", "scheduler_stats"]
    assert all(load["age_s"] < STATS_AGE_S for load in loads_seen)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/completions", {"prompt": "import os"}, id="completion"),
        pytest.param("/v1/completions", {"prompt": [5, 6, 7], "echo": True}, id="token-ids"),
        pytest.param("/v1/completions", {"prompt": ["a b", "c d"]}, id="batch"),
        pytest.param(
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "def f"}], "logprobs": True},
            id="chat",
        ),
        pytest.param("/v1/completions", {"prompt": "x", "temperature": -1}, id="refused"),
        pytest.param("/v1/chat/completions", {"messages": "not a list"}, id="malformed-messages"),
    ],
)
def test_the_router_answers_what_the_engine_answers(
    path: str, body: dict[str, Any], router: RouterProcess, engines: list[VllmEngine]
) -> None:
    greedy = {"model": MODEL_NAME, "max_tokens": 8, "temperature": 0, **body}
    cool(engines)

    status, headers, routed_answer = router.post(path, greedy)
    engine = next(e for e in engines if str(e.ports.http) in headers["x-lodestar-engine"])
    cool(engines)
    direct_status, direct_answer = engine.post_status(path, greedy)

    assert status == direct_status
    assert _comparable(routed_answer) == _comparable(direct_answer)


def hit_ratio(results: Mapping[str, LoadResult]) -> float:
    """Over all prompt tokens of all loads that repeat any."""
    repeating = [result for name, result in results.items() if name != "random"]
    return sum(r.cached_tokens for r in repeating) / sum(r.prompt_tokens for r in repeating)


def _comparable(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What does not change from one request to the next."""
    return {key: value for key, value in answer.items() if key not in ("id", "created")}
