"""The Lodestar paper's policy as published, without three faults of its code.

In       features of engines and request, labels at the ends of answers.
Out      Decision; costs are predicted seconds to the first token, or those of the
         fallback.
Cost     about 0.3 ms for 16 candidates; training happens between decisions.
Source   arXiv 2606.00946 and gangmuk/Lodestar at 23da2a0.

    predict the reward of every engine with one shared net, take the highest; instead,
    - until the first model, and when the request or the first engine by id is out of
      the range trained on: prefix_cache_and_load
    - while the mean KV usage is above 0.8, for a request with over 100 tokens cached
      somewhere: the better of two engines that the hash of its first 160 tokens names

    rounds    every 30 s, if 5,000 labels are there and 1,000 of them new; a model
              serves 8 s later
    window    the new labels, 5,000 before them (FIFO) and 5,000 replayed
    early     lodestar_paper_early does not wait for 5,000 labels: its first round comes with
              the first 1,000, so that runs of minutes show what was learned
    labels    -TTFT in seconds, at the end of the answer; over 15 s they are dropped

Left out are the faults: other features when serving than when training, dropout
while serving, and a net that serves while it is trained. Its store keeps 10,000
rows, from which FIFO, its replay selection and the backfill together take 10,000:
so replay is what the store holds besides. Exploration is off, as in its final runs.
Answers' tokens so far are read from the engines; its gateway counts the same as they
pass. The freshness of a match, in the code only, is not a feature here.
"""

from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import ClassVar, Final

import numpy as np
import xxhash

from lodestar_router.core.types import (
    Candidate,
    Decision,
    Ending,
    EngineId,
    FloatMatrix,
    Outcome,
    RoutedRequest,
    replace,
)
from lodestar_router.policy.by_cost import reason_of
from lodestar_router.policy.prefix_cache_and_load import PrefixCacheAndLoad
from perf.routing.policies.paper_net import LabelledDecision, RewardModel, train
from perf.routing.policies.simulation import Simulation

GPUS: Final = (
    "L20", "A10", "A30", "GPU-L3c", "A100", "H100", "L4", "L40", "L40S", "T4", "V100",
)  # fmt: skip
FEATURES: Final = (
    "inflight_prefill_requests",
    "inflight_decode_requests",
    "gpu_kv_cache",  # 0..1
    "running_requests",
    "waiting_requests",
    "prefill_tokens",  # whole prompts whose first token is awaited
    "decode_tokens",  # generated so far, of answers under way
    *GPUS,  # one-hot; a kind not listed is all zeros, where its code stops
    "kv_hit_ratio",  # whole percent
    "input_tokens",
)
SCALED: Final = np.array([name not in GPUS for name in FEATURES])

ROUND_INTERVAL_S, TRAINING_S = 30.0, 8.0
MIN_LABELS, MIN_NEW_LABELS = 5000, 1000
STORE_LABELS = 10_000  # FIFO and replay
MAX_TTFT_S = 15.0
SATURATED_RATIO, MIN_SHARED_TOKENS, GROUP_TOKENS, GROUP_ENGINES = 0.8, 100, 160, 2


class PaperLodestar:
    """The module's rules."""

    name: ClassVar[str] = "lodestar_paper"
    reads_prompt: ClassVar[bool] = True

    def __init__(self, rng: Random, *, min_labels: int = MIN_LABELS) -> None:
        self._fallback = PrefixCacheAndLoad(rng)
        self._min_labels = min_labels
        self._model: RewardModel | None = None
        self._simulation: Simulation | None = None
        self._open: dict[str, tuple[FloatMatrix, int]] = {}  # until the answer has ended
        self._prefilling: dict[str, tuple[EngineId, int]] = {}  # until the first token
        self._prefill_tokens: defaultdict[EngineId, int] = defaultdict(int)
        self._labels: list[LabelledDecision] = []  # oldest first
        self._new_labels = 0

    def attach(self, simulation: Simulation) -> None:
        """Learn from the simulation's labels, at its time; without it nothing is learned."""
        self._simulation = simulation
        simulation.on_label(self._observe)
        simulation.call_at(simulation.now_s + ROUND_INTERVAL_S, self._round, simulation)

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        if self._simulation is None:
            return self._fall_back(request, candidates)
        rows = self._rows(self._simulation, request, candidates)
        decision = self._decide(self._simulation, request, candidates, rows)
        self._open[request.request_id] = rows, decision.chosen
        self._prefilling[request.request_id] = decision.engine_id, request.prompt_tokens
        self._prefill_tokens[decision.engine_id] += request.prompt_tokens
        return decision

    def _decide(
        self,
        simulation: Simulation,
        request: RoutedRequest,
        candidates: Sequence[Candidate],
        rows: FloatMatrix,
    ) -> Decision:
        first = min(range(len(candidates)), key=lambda i: candidates[i].engine.engine_id)
        if self._model is None or not self._model.knows(rows[first]):
            return self._fall_back(request, candidates)
        costs: list[float] = (-self._model.reward(rows)).tolist()
        allowed = _allowed(simulation, request, candidates)
        chosen = min(allowed, key=costs.__getitem__)
        return Decision(
            policy=self.name,
            candidates=tuple(candidates),
            chosen=chosen,
            costs=costs,
            reason=reason_of(candidates, chosen),
        )

    def _fall_back(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        return replace(self._fallback.choose(request, candidates), policy=self.name)

    def _rows(
        self, simulation: Simulation, request: RoutedRequest, candidates: Sequence[Candidate]
    ) -> FloatMatrix:
        """float32 [candidates, FEATURES]."""
        rows = np.zeros((len(candidates), len(FEATURES)), dtype=np.float32)
        for row, candidate in zip(rows, candidates, strict=True):
            engine, load = candidate.engine, candidate.engine.load
            row[0] = engine.inflight_prefill_requests
            row[1] = engine.inflight_requests - engine.inflight_prefill_requests
            if load is not None:
                row[2:5] = load.kv_cache_usage_ratio, load.num_running_reqs, load.num_waiting_reqs
            row[5] = self._prefill_tokens[engine.engine_id]
            row[6] = _generated_tokens(simulation, engine.engine_id)
            kind = engine.gpu if engine.gpu in GPUS else engine.gpu.partition("-")[0]
            if kind in GPUS:
                row[7 + GPUS.index(kind)] = 1.0
            row[-2] = candidate.cached_prefix_tokens * 100 // request.prompt_tokens
            row[-1] = request.prompt_tokens
        return rows

    def _observe(self, request: RoutedRequest, decision: Decision, outcome: Outcome) -> None:
        prefilling = self._prefilling.pop(request.request_id, None)
        if prefilling is not None:
            self._prefill_tokens[prefilling[0]] -= prefilling[1]
        if outcome.ending is None:
            return
        scored = self._open.pop(request.request_id, None)
        if scored is None or outcome.ending is not Ending.COMPLETED or outcome.ttft_s is None:
            return
        if outcome.ttft_s <= MAX_TTFT_S:
            rows, chosen = scored
            self._labels.append(LabelledDecision(rows=rows, chosen=chosen, reward=-outcome.ttft_s))
            self._new_labels += 1

    def _round(self, simulation: Simulation) -> None:
        simulation.call_at(simulation.now_s + ROUND_INTERVAL_S, self._round, simulation)
        if len(self._labels) < self._min_labels or self._new_labels < MIN_NEW_LABELS:
            return
        model = train(self._labels, SCALED)
        del self._labels[:-STORE_LABELS]
        self._new_labels = 0
        simulation.call_at(simulation.now_s + TRAINING_S, self._serve, model)

    def _serve(self, model: RewardModel) -> None:
        self._model = model


class PaperLodestarEarly(PaperLodestar):
    """The same, with its first round as soon as a round's worth of labels is there."""

    name: ClassVar[str] = "lodestar_paper_early"

    def __init__(self, rng: Random) -> None:
        super().__init__(rng, min_labels=MIN_NEW_LABELS)


def _generated_tokens(simulation: Simulation, engine_id: EngineId) -> int:
    return sum(sequence.output_tokens for sequence in simulation.engine_model(engine_id).running())


def _allowed(
    simulation: Simulation, request: RoutedRequest, candidates: Sequence[Candidate]
) -> Sequence[int]:
    """The candidates' indices, or those of the request's group while KV caches are full."""
    count = len(candidates)
    usage = [c.engine.load.kv_cache_usage_ratio if c.engine.load else 0.0 for c in candidates]
    shared_tokens = max(candidate.cached_prefix_tokens for candidate in candidates)
    saturated = sum(usage) > SATURATED_RATIO * count and shared_tokens > MIN_SHARED_TOKENS
    if not saturated or count <= GROUP_ENGINES:
        return range(count)
    head = np.asarray(simulation.prompt_token_ids(request.request_id)[:GROUP_TOKENS])
    key = head.astype(np.uint32).tobytes()
    by_id = sorted(range(count), key=lambda index: candidates[index].engine.engine_id)
    group: list[int] = []
    for number in range(GROUP_ENGINES):
        place = xxhash.xxh3_64_intdigest(key, seed=number) % count
        while by_id[place] in group:
            place = (place + 1) % count
        group.append(by_id[place])
    return group
