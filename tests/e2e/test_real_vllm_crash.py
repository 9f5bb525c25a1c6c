"""A real engine is killed under load and comes back."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from perf.serving.conversations import Chats, SharedPrefixCompletions
from perf.serving.experiment import cool
from perf.serving.records import Agreement, RequestRecord
from tests.e2e.engines import VllmEngine
from tests.e2e.router import RouterProcess, routed
from tests.e2e.tiny_model import MODEL_NAME

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(600)]

SEED = 7
NOTICED_WITHIN_S = 10.0
KILL_AFTER_S = 3.0

CHATS = Chats(
    sessions=12, turns=10, system_prompts=3, system_words=150, turn_words=120,
    answer_tokens=60, mean_pause_s=0.3,
)  # fmt: skip
# More than the shallow engine can carry, so that any policy needs the deep one.
BURST = SharedPrefixCompletions(
    requests=120, prefixes=30, prefix_words=500, suffix_words=60, answer_tokens=4, per_s=40
)


@pytest.fixture
def victim(engines: list[VllmEngine]) -> Iterator[VllmEngine]:
    """The deep engine, running again afterwards whatever the test made of it."""
    yield engines[1]
    if not engines[1].running:
        engines[1].restart()
        engines[1].wait_ready()


@pytest.fixture
def router(engines: list[VllmEngine], workdir: Path) -> Iterator[RouterProcess]:
    with routed("lodestar", engines, workdir / "crash") as started:
        yield started


def test_a_killed_engine_fails_only_open_streams_and_comes_back(
    router: RouterProcess, victim: VllmEngine, engines: list[VllmEngine]
) -> None:
    cool(engines)

    records = asyncio.run(_chat_while_killing(victim, router))

    failed = [record for record in records if record.error is not None]
    early = [(record.engine, record.error) for record in failed if not record.past_first_byte]
    assert early == [], "these had received nothing: another engine could have served them"
    assert {record.engine for record in failed} <= {router.engine(victim)["engine_id"]}
    assert len(records) > len(failed)

    victim.restart()
    victim.wait_ready()
    router.wait_views_exact()
    held = sum(view["blocks"] for view in router.engine(victim)["views"])
    assert held <= 1, "only the readiness requests may have left a block"

    sent_before = router.engine(victim)["dispatched_total"]
    burst = asyncio.run(BURST.run(router.url, MODEL_NAME, SEED))

    assert [record.error for record in burst if record.error is not None] == []
    assert router.engine(victim)["dispatched_total"] > sent_before
    assert Agreement.of(burst).ratio >= 0.95, Agreement.of(burst)
    assert agreeing_in_any_order(burst) >= 0.99, Agreement.of(burst)


def agreeing_in_any_order(records: Sequence[RequestRecord]) -> float:
    """Share of the router's expectations that an engine reported, for this request or another.

    Of two that are sent in the same millisecond over two connections the second may reach
    the engine first: then it computes their prefix, and the first finds it cached.
    """
    expected = Counter((record.engine, record.expected_cached_tokens or 0) for record in records)
    reported = Counter((record.engine, record.cached_tokens) for record in records)
    return (expected & reported).total() / len(records)


async def _chat_while_killing(victim: VllmEngine, router: RouterProcess) -> Sequence[RequestRecord]:
    """Chats from before the kill to well after it; the router must notice in time."""
    async with asyncio.TaskGroup() as group:
        chats = group.create_task(CHATS.run(router.url, MODEL_NAME, SEED))
        await asyncio.sleep(KILL_AFTER_S)
        victim.kill()
        deadline_s = time.monotonic() + NOTICED_WITHIN_S
        while (await asyncio.to_thread(router.engine, victim))["up"]:
            assert time.monotonic() < deadline_s, "the router did not notice"
            await asyncio.sleep(0.1)
    return chats.result()
