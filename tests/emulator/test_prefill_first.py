"""The scheduler of vLLM V0: whole prompts first, decodes otherwise."""

from typing import Any

from lodestar_router.emulator.config import SchedulerKind
from lodestar_router.emulator.engine_model import EngineModel
from tests.emulator.factories import engine, request, steps


def v0_engine(**fields: Any) -> EngineModel:
    return engine(
        scheduler=SchedulerKind.PREFILL_FIRST,
        prefix_caching=False,
        **{"max_num_batched_tokens": 512, **fields},
    )


def test_an_arrival_stalls_the_answers_in_progress() -> None:
    model = v0_engine()
    model.add(request("old", prompt=30, max_tokens=5))
    model.step(0.0)
    model.step(0.1)

    model.add(request("new", prompt=200, max_tokens=5))
    prefill, decode = model.step(0.2), model.step(0.3)

    assert prefill is not None
    assert [s.request_id for s in prefill.emitted] == ["new"]
    assert [chunk.new_tokens for chunk in prefill.chunks] == [200]
    assert decode is not None
    assert [s.request_id for s in decode.emitted] == ["old", "new"]
    assert decode.chunks == []


def test_prompts_share_a_step_up_to_the_budget_and_are_never_cut() -> None:
    model = v0_engine()
    for index in range(4):
        model.add(request(f"r{index}", prompt=200, max_tokens=2))

    first, second = model.step(0.0), model.step(0.1)

    assert first is not None
    assert second is not None
    assert [chunk.new_tokens for chunk in first.chunks] == [200, 200]
    assert [chunk.new_tokens for chunk in second.chunks] == [200, 200]
    assert first.decodes == second.decodes == 0


def test_admission_leaves_a_watermark_free() -> None:
    model = v0_engine(num_blocks=201, max_num_batched_tokens=4096, max_model_len=4000)
    model.add(request("a", prompt=198 * 16 - 1, max_tokens=2))
    model.add(request("b", prompt=16, max_tokens=2))

    result = model.step(0.0)

    # 200 blocks, 2 of them the watermark: 198 go to the first, none is left to give.
    assert result is not None
    assert [chunk.sequence.request_id for chunk in result.chunks] == ["a"]
    assert model.free_blocks == 2


def test_the_latest_arrival_is_preempted_even_if_it_was_not_admitted_last() -> None:
    model = v0_engine(num_blocks=9, max_model_len=128)
    names = ("a", "b", "c")
    for name in names:
        model.add(request(name, prompt=30, max_tokens=60))

    results = list(steps(model))

    preempted = [s.request_id for result in results for s in result.preempted]
    finished = [s.request_id for result in results for s in result.finished]
    assert preempted[0] == "c"
    assert "a" not in preempted
    assert finished == ["a", "b", "c"]
    assert sum(len(result.emitted) for result in results) == 180
