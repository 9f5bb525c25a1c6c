"""Time from token ids to a decision of the learned policy: keys, match, snapshots, choose.

    python -m perf.decision [--engines 16 64] [--prompt-tokens 8192] [--requests 3000]

Engines have exact views and loads as in traffic: 1,700 blocks each (an A30's cache), of
prompts that share half; what is asked shares a prefix with some of them. A prompt's keys
are made anew for each request, as for a prompt never seen; tokenizing is not in it.

Out      microseconds, P50 and P99, by the parts and together; on a machine with nothing else to do.
Cost     about 10 s.
"""

import argparse
import gc
import os
import platform
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from time import perf_counter_ns

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy loads; as in the router's cli

import numpy as np

from lodestar_router.core.block_keys import TokenArray
from lodestar_router.core.blocks import Prompt
from lodestar_router.core.fleet import Fleet
from lodestar_router.core.kv_events import BlockStored, ViewId
from lodestar_router.core.prefix_index import PrefixIndex
from lodestar_router.core.types import (
    Candidate,
    Decision,
    EngineId,
    EngineLoad,
    EngineSpec,
    PrefixViewKind,
    RoutedRequest,
)
from lodestar_router.features.rates import TtftRates
from lodestar_router.features.residual_tracker import ResidualTracker
from lodestar_router.features.scaling import Scaler
from lodestar_router.features.schema import NUM_FEATURES
from lodestar_router.features.serving import Layer, PublishedModel
from lodestar_router.policy.lodestar import LodestarPolicy

MODEL = "m"
BLOCK_TOKENS = 16
CACHED_BLOCKS = 1_700
HIDDEN = (64, 32)  # as learning.model has it, which would import torch
KINDS = ("A30", "V100")
PARTS = ("keys", "match", "snapshots", "choose", "together")


class Scene:
    """A router's views of so many engines, and requests to decide."""

    def __init__(self, engines: int, prompt_tokens: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._shared = [self._tokens(prompt_tokens // 2) for _ in range(64)]
        self._prompt_tokens = prompt_tokens
        tracker = ResidualTracker()
        self.index = PrefixIndex()
        self.fleet = Fleet(prefix_view=self.index.kind, log_residual=tracker.value)
        self.policy = LodestarPolicy(Random(0), trained(rng))
        self.engine_ids = [EngineId(f"e{number}:8000") for number in range(engines)]
        for number, engine_id in enumerate(self.engine_ids):
            self._add(engine_id, KINDS[number % len(KINDS)])
            tracker.observe(engine_id, float(rng.normal(0, 0.2)), 0.0)

    def _tokens(self, count: int) -> TokenArray:
        return self._rng.integers(0, 128_000, count, dtype=np.uint32)

    def prompt(self) -> Prompt:
        """Half of it shared with others."""
        shared = self._shared[int(self._rng.integers(len(self._shared)))]
        own = self._tokens(self._prompt_tokens - len(shared))
        return Prompt([np.concatenate((shared, own))])

    def _add(self, engine_id: EngineId, gpu: str) -> None:
        fleet, index, rng = self.fleet, self.index, self._rng
        fleet.add(EngineSpec(engine_id=engine_id, url=f"http://{engine_id}", gpu=gpu))
        fleet[engine_id].kv_blocks, fleet[engine_id].block_size_tokens = 1_800, BLOCK_TOKENS
        index.add_engine(engine_id)
        index.set_capacity(engine_id, 1_800, BLOCK_TOKENS)
        index.set_kind(ViewId(engine_id), PrefixViewKind.EXACT)
        fleet.mark_up(engine_id, [{"id": MODEL}], 0.0)
        fleet.observe_load(
            engine_id,
            EngineLoad(
                observed_at_s=0.0,
                source="scheduler_stats",
                num_running_reqs=int(rng.integers(20)),
                num_waiting_reqs=int(rng.integers(3)),
                kv_cache_usage_ratio=float(rng.uniform(0.2, 0.9)),
            ),
        )
        for _ in range(int(rng.integers(4))):
            fleet.dispatch(engine_id, prompt_tokens=4000, cached_prefix_tokens=1000)
        held = 0
        while held < CACHED_BLOCKS:
            keys = self.prompt().keys(BLOCK_TOKENS)[0][: CACHED_BLOCKS - held]
            index.apply(ViewId(engine_id), [stored(keys)])
            held += len(keys)

    def decide(self, number: int) -> tuple[list[int], Decision]:
        """(nanoseconds by PARTS, the decision)."""
        prompt, now_s = self.prompt(), 1.0 + number * 0.05
        marks = [perf_counter_ns()]
        prompt.keys(BLOCK_TOKENS)
        marks.append(perf_counter_ns())
        cached = self.index.match(prompt, self.engine_ids)
        marks.append(perf_counter_ns())
        request = RoutedRequest(
            request_id=str(number),
            model=MODEL,
            prompt_tokens=prompt.tokens,
            tokens_known=True,
            max_output_tokens=None,
            stream=True,
            now_s=now_s,
        )
        candidates = [
            Candidate(
                engine=self.fleet.snapshot(state.spec.engine_id, now_s),
                cached_prefix_tokens=cached[state.spec.engine_id],
            )
            for state in self.fleet.usable(MODEL, now_s)
        ]
        marks.append(perf_counter_ns())
        decision = self.policy.choose(request, candidates)
        marks.append(perf_counter_ns())
        spent = np.diff(marks).tolist()
        return [*spent, sum(spent)], decision


def stored(keys: Sequence[int]) -> BlockStored:
    """An event of blocks that are known by their keys."""
    return BlockStored(
        block_hashes=tuple(keys),
        parent_block_hash=None,
        token_ids=(),
        block_size_tokens=BLOCK_TOKENS,
        keys=list(keys),
    )


def trained(rng: np.random.Generator) -> PublishedModel:
    """A model of the trainer's shape; what it says does not matter here."""
    sizes = (NUM_FEATURES, *HIDDEN, 1)
    layers: list[Layer] = [
        (
            rng.normal(0, 0.1, (inputs, outputs)).astype(np.float32),
            rng.normal(0, 0.1, outputs).astype(np.float32),
        )
        for inputs, outputs in pairwise(sizes)
    ]
    ones = np.ones(NUM_FEATURES, np.float32)
    return PublishedModel(
        version=1,
        rates=TtftRates(),
        scaler=Scaler(0 * ones, ones),
        layers=tuple(layers),
        trusted=True,
    )


def percentiles(spent_ns: Sequence[Sequence[int]]) -> list[tuple[float, float]]:
    """(P50, P99) of each part, in microseconds."""
    columns = np.array(spent_ns, dtype=float).T / 1e3
    return [(float(np.percentile(c, 50)), float(np.percentile(c, 99))) for c in columns]


def run(
    engines: int, prompt_tokens: int, requests: int, note: Callable[[str], None] = print
) -> list[tuple[float, float]]:
    """Measure one fleet."""
    scene = Scene(engines, prompt_tokens, np.random.default_rng(0))
    for number in range(requests // 10):
        scene.decide(number)
    gc.collect()
    gc.freeze()
    found = percentiles([scene.decide(number)[0] for number in range(requests)])
    cells = " | ".join(f"{p50:.0f} / {p99:.0f}" for p50, p99 in found)
    note(f"| {engines} | {prompt_tokens} | {cells} |")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m perf.decision", description=__doc__)
    parser.add_argument("--engines", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--prompt-tokens", type=int, default=8192)
    parser.add_argument("--requests", type=int, default=3000)
    options = parser.parse_args(argv)
    print(f"{platform.machine()}, Python {platform.python_version()}; us, P50 / P99")
    print("| engines | prompt tokens | " + " | ".join(PARTS) + " |")
    print("|---" * (len(PARTS) + 2) + "|")
    for engines in options.engines:
        run(engines, options.prompt_tokens, options.requests)


if __name__ == "__main__":
    main()
