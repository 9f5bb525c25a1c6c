"""Builders of small engines and requests, and a client that plays them."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from lodestar_router.emulator.config import EngineModelConfig
from lodestar_router.emulator.engine_model import EngineModel, StepResult
from lodestar_router.emulator.sequence import EmulatedRequest
from lodestar_router.emulator.step_time import FixedStepTime, StepTime

STEP_S = 0.1


class ShapeStepTime:
    """A different time for every different batch, to tell batches apart."""

    def seconds(
        self, chunks: Sequence[tuple[int, int]], decodes: int, decode_kv_tokens: int
    ) -> float:
        prefill = sum(new * 31 + context for new, context in chunks)
        return (1 + prefill * 7919 + decodes * 104_729 + decode_kv_tokens) * 1e-6


def engine(step_time: StepTime | None = None, **fields: Any) -> EngineModel:
    """An engine of 63 blocks of 16 tokens whose steps take STEP_S unless told otherwise."""
    defaults: dict[str, Any] = {
        "num_blocks": 64,
        "max_num_batched_tokens": 64,
        "max_num_seqs": 16,
        "max_model_len": 512,
        "vocab_size": 1000,
    }
    return EngineModel(
        EngineModelConfig(**{**defaults, **fields}), step_time or FixedStepTime(STEP_S)
    )


def request(
    name: str, prompt: int | list[int] = 20, max_tokens: int = 4, arrived_at_s: float = 0.0
) -> EmulatedRequest:
    """A request; a number stands for a prompt of that many tokens of its own."""
    if isinstance(prompt, int):
        prompt = [Random(name).randrange(1000) for _ in range(prompt)]
    return EmulatedRequest(
        request_id=name, token_ids=prompt, max_tokens=max_tokens, arrived_at_s=arrived_at_s
    )


def steps(model: EngineModel, start_s: float = 0.0, limit: int = 10_000) -> Iterator[StepResult]:
    """Steps until nothing is left to do."""
    now_s = start_s
    for _ in range(limit):
        result = model.step(now_s)
        if result is None:
            return
        yield result
        now_s = result.ended_at_s
    raise AssertionError(f"still busy after {limit} steps: {model!r}")


def random_requests(rng: Random, count: int, longest_prompt: int) -> list[EmulatedRequest]:
    """Prompts that share beginnings, of all lengths around block borders."""
    stems = [[rng.randrange(1000) for _ in range(longest_prompt)] for _ in range(3)]
    requests = []
    for index in range(count):
        length = rng.randrange(1, longest_prompt + 1)
        shared = rng.randrange(0, length + 1)
        own = [rng.randrange(1000) for _ in range(length - shared)]
        prompt = rng.choice(stems)[:shared] + own
        requests.append(request(f"r{index}", prompt, rng.randrange(1, 40)))
    return requests
