"""The model against step-by-step traces of vLLM 0.32's own scheduler.

Each scenario holds requests with the step of their arrival, and for every step
what was scheduled, found in the cache, resumed, emitted and finished, the
queues, the free blocks and the KV events. Block hashes are numbered by first
appearance, as they are names only.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lodestar_router.core.kv_events import AllBlocksCleared, BlockHash, BlockStored, KvEvent
from lodestar_router.emulator.block_pool import as_published
from lodestar_router.emulator.config import EngineModelConfig
from lodestar_router.emulator.engine_model import EngineModel, StepResult
from lodestar_router.emulator.sequence import EmulatedRequest
from lodestar_router.emulator.step_time import FixedStepTime

GOLDEN = Path(__file__).parent.parent / "data" / "golden_vllm032_sync.jsonl.gz"


def scenarios() -> list[dict[str, Any]]:
    with gzip.open(GOLDEN, "rt") as lines:
        return [json.loads(line) for line in lines]


class BlockNames:
    """Hashes as numbers, in the order in which they come up."""

    def __init__(self) -> None:
        self._numbers: dict[BlockHash, int] = {}

    def of(self, block_hash: BlockHash | None) -> int | None:
        if block_hash is None:
            return None
        return self._numbers.setdefault(block_hash, len(self._numbers))

    def event(self, event: KvEvent) -> dict[str, Any]:
        assert not isinstance(event, AllBlocksCleared)
        hashes = [self.of(block_hash) for block_hash in event.block_hashes]
        if not isinstance(event, BlockStored):
            return {"type": "BlockRemoved", "hashes": hashes}
        parent = self.of(event.parent_block_hash)
        n_tokens = len(event.token_ids)
        return {"type": "BlockStored", "hashes": hashes, "parent": parent, "n_tokens": n_tokens}


def engine_of(config: dict[str, Any]) -> EngineModel:
    return EngineModel(
        EngineModelConfig(
            num_blocks=config["num_blocks"],
            max_num_batched_tokens=config["max_num_batched_tokens"],
            max_num_seqs=config["max_num_seqs"],
            max_model_len=config["max_model_len"],
            chunked_prefill=config["chunked_prefill"],
            prefix_caching=config["prefix_caching"],
            reserve_full_sequence=config["reserve_full_isl"],
            long_prefill_token_threshold=config["long_prefill_token_threshold"],
        ),
        FixedStepTime(1.0),
    )


def as_recorded(result: StepResult | None, names: BlockNames) -> dict[str, Any]:
    """A step in the words of the golden file."""
    if result is None:
        keys = ("resumed", "emitted", "finished", "events")
        return {"scheduled": {}, "new_computed": {}, **{key: [] for key in keys}}
    scheduled = {chunk.sequence.request_id: chunk.new_tokens for chunk in result.chunks}
    for sequence in result.emitted:
        scheduled.setdefault(sequence.request_id, 1)
    admitted = [chunk for chunk in result.chunks if chunk.admitted]
    return {
        "scheduled": scheduled,
        "new_computed": {
            chunk.sequence.request_id: chunk.context_tokens
            for chunk in admitted
            if not chunk.sequence.preemptions
        },
        "resumed": [c.sequence.request_id for c in admitted if c.sequence.preemptions],
        "emitted": [sequence.request_id for sequence in result.emitted],
        "finished": [sequence.request_id for sequence in result.finished],
        "events": [names.event(event) for event in as_published(result.events)],
    }


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda s: f"scenario-{s['scenario']}")
def test_every_step_is_the_one_vllm_took(scenario: dict[str, Any]) -> None:
    model, names = engine_of(scenario["config"]), BlockNames()
    arrivals: dict[int, list[dict[str, Any]]] = {}
    for entry in scenario["requests"]:
        arrivals.setdefault(entry["arrive_step"], []).append(entry)

    for recorded in scenario["steps"]:
        step = recorded["step"]
        for entry in arrivals.get(step, []):
            model.add(
                EmulatedRequest(
                    request_id=entry["id"],
                    token_ids=entry["prompt"],
                    max_tokens=entry["max_tokens"],
                    answer_seed=0,  # there, equal prompts were answered alike
                )
            )
        seen = as_recorded(model.step(float(step)), names)

        assert {
            "step": step,
            **seen,
            "running": [sequence.request_id for sequence in model.running()],
            "waiting": [sequence.request_id for sequence in model.waiting()],
            "free_blocks": model.free_blocks,
            "usage": round(model.kv_cache_usage_ratio, 6),
        } == recorded


def test_the_traces_hold_what_they_are_there_for() -> None:
    every_step = [step for scenario in scenarios() for step in scenario["steps"]]

    assert len(scenarios()) == 60
    assert sum(len(step["resumed"]) for step in every_step) > 10
    assert any(event["type"] == "BlockRemoved" for step in every_step for event in step["events"])
