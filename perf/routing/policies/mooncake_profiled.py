"""Mooncake's conductor with the prefill times of the real profiles.

In, out  as `lodestar_router.policy.mooncake`.
Cost     about 5 us per new token count and engine kind, then a dictionary look-up.
Errors   ConfigError for a GPU kind or model without a profile.
Source   engine_profiles.json, by the emulator's step time.

The offline fit that Mooncake's estimate needs is replaced by what it would fit:
the time of a prompt alone on an idle engine, in the engine's own chunks.
"""

from collections.abc import Sequence
from functools import cache
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, RoutedRequest
from lodestar_router.emulator.build import EngineSettings, build_engine
from lodestar_router.policy.mooncake import Mooncake, PrefillTime

_GRAIN_TOKENS = 32  # both counts are rounded to it, so that few times are computed


@cache
def profiled_prefill_s(model: str) -> PrefillTime:
    """(GPU kind, new tokens, cached tokens) -> seconds, for engines that serve `model`."""

    @cache
    def prefill_of_grains_s(gpu: str, new_grains: int, cached_grains: int) -> float:
        engine = build_engine(EngineSettings(gpu=gpu, model=model))
        seconds, budget = engine.step_time.seconds, engine.config.max_num_batched_tokens
        left, context, total_s = new_grains * _GRAIN_TOKENS, cached_grains * _GRAIN_TOKENS, 0.0
        while left > 0:
            chunk = min(left, budget)
            total_s += seconds([(chunk, context)], 0, 0)
            left, context = left - chunk, context + chunk
        return total_s

    def prefill_s(gpu: str, new_tokens: int, cached_tokens: int) -> float:
        new_grains = -(-new_tokens // _GRAIN_TOKENS)
        return prefill_of_grains_s(gpu, new_grains, cached_tokens // _GRAIN_TOKENS)

    return prefill_s


class MooncakeProfiled(Mooncake):
    """Mooncake whose estimate knows the profile of each GPU kind with the request's model."""

    name: ClassVar[str] = "mooncake_profiled"

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        self._prefill_s = profiled_prefill_s(request.model)
        return super().choose(request, candidates)
