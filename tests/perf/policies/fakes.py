"""A simulation that a test sets up by hand."""

import heapq
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np

from lodestar_router.core.block_keys import TokenArray
from lodestar_router.core.blocks import Prompt
from lodestar_router.core.types import (
    Candidate,
    Decision,
    Ending,
    EngineId,
    Outcome,
    RoutedRequest,
)
from lodestar_router.emulator.engine_model import EngineModel
from lodestar_router.emulator.sequence import EmulatedRequest
from perf.routing.policies.simulation import OnLabel
from tests.emulator.factories import engine
from tests.factories import candidate


class FakeSimulation:
    """Engines, prompts and labels as the test puts them; timers run in `advance`."""

    def __init__(self, models: dict[str, EngineModel] | None = None) -> None:
        self.now_s = 0.0
        self.transit_s = 0.01
        self.models = models or {}
        self.step_ends: dict[str, float] = {}
        self.under_way: dict[str, list[EmulatedRequest]] = {}
        self.prompts: dict[str, TokenArray] = {}
        self._callbacks: list[OnLabel] = []
        self._timers: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()

    def engine_model(self, engine_id: EngineId) -> EngineModel:
        return self.models.setdefault(engine_id, engine())

    def step_ends_s(self, engine_id: EngineId) -> float | None:
        return self.step_ends.get(engine_id)

    def on_their_way(self, engine_id: EngineId) -> Sequence[EmulatedRequest]:
        return self.under_way.get(engine_id, [])

    def prompt_token_ids(self, request_id: str) -> TokenArray:
        return self.prompts.get(request_id, np.zeros(100, dtype=np.uint32))

    def prompt(self, request_id: str) -> Prompt:
        return Prompt([self.prompt_token_ids(request_id)])

    def on_label(self, callback: OnLabel) -> None:
        self._callbacks.append(callback)

    def call_at(self, due_s: float, act: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._timers, (due_s, next(self._numbers), act, args))

    def advance(self, to_s: float) -> None:
        """Let time pass, and what is due happen."""
        while self._timers and self._timers[0][0] <= to_s:
            self.now_s, _, act, args = heapq.heappop(self._timers)
            act(*args)
        self.now_s = to_s

    def label(
        self,
        request: RoutedRequest,
        decision: Decision,
        ttft_s: float | None,
        ending: Ending | None = None,
    ) -> None:
        """Tell the policy what came of a request."""
        outcome = Outcome(
            request_id=request.request_id,
            engine_id=decision.engine_id,
            ending=ending,
            ttft_s=ttft_s,
            waited_s=0.0 if ttft_s is None else ttft_s,
        )
        for callback in self._callbacks:
            callback(request, decision, outcome)


class LinearStepTime:
    """Seconds that tell all shapes of a batch apart."""

    def seconds(
        self, chunks: Sequence[tuple[int, int]], decodes: int, decode_kv_tokens: int
    ) -> float:
        prefill_s = sum(new * (5e-4 + context * 1e-7) for new, context in chunks)
        return 0.01 + prefill_s + decodes * 1e-3 + decode_kv_tokens * 1e-6


def three() -> list[Candidate]:
    """Idle engines a, b and c."""
    return [candidate(name) for name in "abc"]
