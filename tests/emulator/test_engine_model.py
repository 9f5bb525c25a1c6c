"""EngineModel: queueing, caching, preemption, aborts, and what always holds."""

from random import Random
from typing import Any

import pytest
from msgspec import structs

from lodestar_router.core.kv_events import AllBlocksCleared, BlockRemoved, BlockStored
from lodestar_router.emulator.config import SchedulerKind
from lodestar_router.emulator.engine_model import EngineModel
from lodestar_router.emulator.scheduler import Scheduler
from lodestar_router.emulator.sequence import Sequence
from lodestar_router.errors import RequestError
from tests.emulator.factories import STEP_S, ShapeStepTime, engine, random_requests, request, steps

VARIANTS = [
    pytest.param({}, id="plain"),
    pytest.param({"prefix_caching": False}, id="no-prefix-caching"),
    pytest.param({"reserve_full_sequence": False}, id="first-chunk-gate"),
    pytest.param({"long_prefill_token_threshold": 24}, id="long-prefill-threshold"),
    pytest.param(
        {"long_prefill_token_threshold": 24, "max_num_batched_tokens": 48}, id="two-chunks-a-step"
    ),
    pytest.param({"num_blocks": 12, "max_model_len": 160}, id="small-pool"),
    pytest.param(
        {"num_blocks": 12, "max_model_len": 160, "reserve_full_sequence": False}, id="preempting"
    ),
    pytest.param({"max_num_batched_tokens": 20, "max_num_seqs": 20}, id="small-budget"),
    pytest.param({"chunked_prefill": False, "max_num_batched_tokens": 512}, id="unchunked"),
    pytest.param({"scheduler": "prefill_first", "max_num_batched_tokens": 512}, id="prefill-first"),
]


def test_a_request_is_prefilled_in_chunks_and_then_makes_a_token_per_step() -> None:
    model = engine()
    sequence = model.add(request("a", prompt=100, max_tokens=3, arrived_at_s=0.0))

    results = list(steps(model))

    assert [len(result.emitted) for result in results] == [0, 1, 1, 1]
    assert [chunk.new_tokens for result in results for chunk in result.chunks] == [64, 36]
    assert sequence.admitted_at_s == 0.0
    assert sequence.first_token_at_s == pytest.approx(2 * STEP_S)
    assert sequence.finished_at_s == pytest.approx(4 * STEP_S)
    assert sequence.output_tokens == 3


def test_a_step_with_nothing_to_do_is_no_step() -> None:
    model = engine()

    assert model.step(0.0) is None


def test_the_first_that_does_not_fit_holds_up_all_behind_it() -> None:
    model = engine(num_blocks=11, max_model_len=160)
    for name, prompt in (("running", 48), ("large", 120), ("small", 16)):
        model.add(request(name, prompt=prompt, max_tokens=8))

    result = model.step(0.0)

    assert result is not None
    assert [s.request_id for s in model.running()] == ["running"]
    assert [s.request_id for s in model.waiting()] == ["large", "small"]


def test_a_follow_up_finds_the_prompt_and_the_answer_in_the_cache() -> None:
    model = engine()
    first = model.add(request("first", prompt=40, max_tokens=30))
    list(steps(model))
    turn = [*first.tokens(0, 70), *range(10)]

    second = model.add(request("second", prompt=turn))
    result = next(steps(model))

    # 69 tokens were computed: the last of an answer never is.
    assert second.cached_tokens == 64
    assert (result.prefix_queries_tokens, result.prefix_hits_tokens) == (80, 64)


def test_an_evicted_block_is_reported_when_it_is_reused() -> None:
    model = engine(num_blocks=6, max_model_len=80)
    model.add(request("a", prompt=64, max_tokens=1))
    stored = [event for result in steps(model) for event in result.events]

    model.add(request("b", prompt=64, max_tokens=1))
    events = [event for result in steps(model) for event in result.events]

    assert [type(event) for event in stored] == [BlockStored]
    [removed] = [event.block_hashes for event in events if isinstance(event, BlockRemoved)]
    assert isinstance(stored[0], BlockStored)
    # One block was still unused; of the others the end of the prompt goes first.
    assert removed == tuple(reversed(stored[0].block_hashes[1:]))


def test_a_preempted_request_resumes_and_ends_with_all_its_tokens() -> None:
    model = engine(num_blocks=8, max_model_len=112)
    names = ("a", "b", "c")
    sequences = [model.add(request(name, prompt=20, max_tokens=60)) for name in names]

    results = list(steps(model))

    preempted = [s.request_id for result in results for s in result.preempted]
    assert preempted[0] == "c"
    assert [sequence.output_tokens for sequence in sequences] == [60, 60, 60]
    assert [s.request_id for result in results for s in result.finished] == ["a", "b", "c"]
    emitted = [s.request_id for result in results for s in result.emitted]
    assert {name: emitted.count(name) for name in names} == {"a": 60, "b": 60, "c": 60}


def test_a_prompt_that_outgrows_the_pool_gives_way_to_those_before_it() -> None:
    model = engine(num_blocks=12, max_model_len=176, reserve_full_sequence=False)
    model.add(request("old", prompt=60, max_tokens=40))
    late = model.add(request("late", prompt=120, max_tokens=2))

    results = list(steps(model))

    # Step 2 lacks a block for the end of the prompt; nobody younger can make room.
    assert [s.request_id for s in results[2].preempted] == ["late"]
    assert [s.request_id for s in results[2].emitted] == ["old"]
    assert (late.preemptions, late.cached_tokens, late.output_tokens) == (1, 0, 2)
    assert [s.request_id for result in results for s in result.finished] == ["old", "late"]


def test_slowdown_stretches_steps_and_may_change_while_running() -> None:
    model = engine(slowdown=2.0)
    model.add(request("a", max_tokens=2))

    slow = model.step(0.0)
    model.slowdown = 1.0
    normal = model.step(1.0)

    assert slow is not None
    assert normal is not None
    assert (slow.duration_s, normal.duration_s) == (2 * STEP_S, STEP_S)


def test_clearing_the_cache_waits_for_an_idle_engine() -> None:
    model = engine()
    prompt = list(range(40))
    model.add(request("a", prompt=prompt, max_tokens=2))
    model.step(0.0)
    assert not model.clear_prefix_cache()
    list(steps(model))

    assert model.clear_prefix_cache()
    again = model.add(request("b", prompt=prompt))
    result = next(steps(model))

    assert isinstance(result.events[0], AllBlocksCleared)
    assert again.cached_tokens == 0


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "reason"),
    [
        pytest.param(0, 1, "1 token at least", id="empty-prompt"),
        pytest.param(4, 0, "1 token at least", id="no-answer-wanted"),
        pytest.param(512, 1, "leaves no room", id="prompt-fills-context"),
        pytest.param(100, 400, "KV blocks", id="outgrows-the-pool"),
    ],
)
def test_what_could_never_run_is_refused(prompt: int, max_tokens: int, reason: str) -> None:
    model = engine(num_blocks=20)

    with pytest.raises(RequestError, match=reason):
        model.add(request("a", prompt=prompt, max_tokens=max_tokens))

    assert not model.has_work


def test_an_id_can_be_used_again_only_after_its_end() -> None:
    model = engine()
    model.add(request("a"))

    with pytest.raises(KeyError):
        model.add(request("a"))

    assert model.abort("a", 0.0)
    model.add(request("a"))


def held_blocks(model: EngineModel) -> int:
    return len({block for sequence in model.running() for block in sequence.blocks})


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(4))
def test_no_block_is_lost_and_the_queue_keeps_its_order(variant: dict[str, Any], seed: int) -> None:
    rng = Random(seed)
    model = engine(**variant)
    capacity = model.config.num_blocks - 1
    pending = random_requests(rng, count=40, longest_prompt=90)
    sequences: dict[str, Sequence] = {}
    admitted, now_s = [], 0.0
    while pending or model.has_work:
        for entry in [pending.pop() for _ in range(min(len(pending), rng.choice((0, 0, 1, 3))))]:
            sequences[entry.request_id] = model.add(entry)
        if sequences and rng.random() < 0.05:
            model.abort(rng.choice(list(sequences)), now_s)
        running = model.num_running_reqs
        result = model.step(now_s)
        assert model.free_blocks + held_blocks(model) == capacity
        if result is not None:
            new = [c.sequence for c in result.chunks if c.admitted]
            admitted += [s.request_id for s in new if not s.preemptions]
            assert result.decodes + sum(c.new_tokens for c in result.chunks) <= (
                model.config.max_num_batched_tokens
            )
            assert result.num_running_reqs <= model.config.max_num_seqs
            if model.config.scheduler is SchedulerKind.CHUNKED:
                carried_on = result.decodes + sum(not c.admitted for c in result.chunks)
                assert carried_on == running - len(result.preempted)
            now_s = result.ended_at_s

    assert model.free_blocks == capacity
    arrived = [name for name in sequences if name in set(admitted)]
    assert admitted == arrived
    for sequence in sequences.values():
        assert sequence.aborted or sequence.num_tokens == sequence.end_tokens
        assert sequence.finished_at_s is not None


@pytest.mark.parametrize("variant", VARIANTS)
def test_moving_decodes_together_equals_moving_them_one_by_one(
    variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = trace(engine(ShapeStepTime(), **variant), seed=7)

    monkeypatch.setattr(Scheduler, "_schedule_running", one_by_one)
    apart = trace(engine(ShapeStepTime(), **variant), seed=7)

    assert together == apart


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("variant", VARIANTS)
def test_not_looking_again_at_a_queue_head_that_cannot_fit_changes_nothing(
    variant: dict[str, Any], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = 0
    is_stuck = Scheduler._is_stuck

    def counted(scheduler: Scheduler, sequence: Sequence) -> bool:
        nonlocal skipped
        stuck = is_stuck(scheduler, sequence)
        skipped += stuck
        return stuck

    monkeypatch.setattr(Scheduler, "_is_stuck", counted)
    skipping = trace(engine(ShapeStepTime(), **variant), seed)
    monkeypatch.setattr(Scheduler, "_is_stuck", lambda *_: False)
    looking = trace(engine(ShapeStepTime(), **variant), seed)

    assert skipping == looking
    assert skipped or "num_blocks" not in variant or "reserve_full_sequence" in variant


def one_by_one(scheduler: Scheduler, batch: object) -> int:
    budget = scheduler._config.max_num_batched_tokens
    return scheduler._schedule_one_by_one(batch, budget)  # type: ignore[arg-type]


def trace(model: EngineModel, seed: int) -> list[tuple[Any, ...]]:
    """Everything a step shows, for 60 requests that arrive while others run."""
    rng = Random(seed)
    pending, now_s = random_requests(rng, 60, 90), 0.0
    seen: list[tuple[Any, ...]] = []
    while pending or model.has_work:
        for _ in range(min(len(pending), rng.choice((0, 1, 2)))):
            model.add(pending.pop())
        result = model.step(now_s)
        if result is None:
            continue
        now_s = result.ended_at_s
        seen.append(
            (
                sorted(s.request_id for s in result.emitted),
                sorted(s.request_id for s in result.finished),
                [(c.sequence.request_id, *c[1:]) for c in result.chunks],
                [s.request_id for s in result.preempted],
                [str(event) for event in result.events],
                result.decodes,
                result.duration_s,
                structs.astuple(result)[9:],
            )
        )
    return seen
