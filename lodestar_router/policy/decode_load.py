"""Where an answer is written whose prompt comes computed from another engine.

    cost_i  = output * tpot_i + others_i + queue_i                      seconds
    queue_i = (waiting_i + short_i) * output * tpot_i / running_i

    output, tpot_i, others_i   features/decoding.py
    waiting_i, running_i       the engine's last report; 0 and 1 without one
    short_i                    1 if its KV cache has no room for the prompt now

The queue is Little's law: as many requests must end before this one begins, and
`running_i` of them end per answer. Nothing is said of prefixes: the prompt
arrives whole, and what a transfer of it takes is about equal everywhere.

In       a request and candidates, all able to receive the prompt.
Out      Decision without features: the time to the first token of this leg is a
         transfer, of which the model of prefill must not learn.
Cost     about 2 us per candidate.
"""

from collections.abc import Sequence
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, EngineSnapshot, RoutedRequest
from lodestar_router.features.decoding import Decoding
from lodestar_router.policy.by_cost import decide_by_cost


class DecodeLoad:
    """Choose by the module's formula; ties are broken by `rng`."""

    name: ClassVar[str] = "decode_load"
    reads_prompt: ClassVar[bool] = False

    def __init__(self, rng: Random, decoding: Decoding) -> None:
        self._rng = rng
        self._decoding = decoding

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        forecast = self._decoding.forecast(request, candidates)
        costs: list[float] = []
        for candidate, tpot_s, others_s in zip(
            candidates, forecast.tpot_s, forecast.others_s, strict=True
        ):
            answer_s = forecast.output_tokens * tpot_s
            ahead = _answers_ahead(candidate.engine, request.prompt_tokens)
            costs.append(answer_s * (1.0 + ahead) + others_s)
        return decide_by_cost(self.name, candidates, costs, self._rng)


def _answers_ahead(engine: EngineSnapshot, prompt_tokens: int) -> float:
    """How many answers' time passes until the engine begins this one."""
    load = engine.load
    if load is None:
        return 0.0
    short = 0
    if engine.kv_blocks is not None and engine.block_size_tokens is not None:
        room_tokens = engine.kv_blocks * engine.block_size_tokens
        short = (1.0 - load.kv_cache_usage_ratio) * room_tokens < prompt_tokens
    return (load.num_waiting_reqs + short) / max(load.num_running_reqs, 1)
