"""The loads that policies are compared under, in two sizes.

Each has a `run(url, model, seed) -> Measured`. Sizes suit two unequal engines of
the tiny model, each on a core of its own: most work is prefill, the shallow engine could
carry nearly all of it, and nothing is ever evicted from a 1 GiB KV cache.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from perf.serving.conversations import Chats, SharedPrefixCompletions
from perf.serving.records import Measured
from perf.serving.vllm_bench import VllmBench


class Load(Protocol):
    """Traffic that can be sent to a URL, again with another seed."""

    def run(self, url: str, model: str, seed: int) -> Measured:
        """Send all of it; failures are counted, not raised."""
        ...


@dataclass(frozen=True, slots=True)
class OwnLoad:
    """A load of our own client, run on an event loop of its own."""

    traffic: Chats | SharedPrefixCompletions

    def run(self, url: str, model: str, seed: int) -> Measured:
        """Send all of it."""
        started_s = time.monotonic()
        records = asyncio.run(self.traffic.run(url, model, seed))
        return Measured.of(records, time.monotonic() - started_s)


# Sent before anything is measured, so that a learning policy has seen both engines.
WARM_UP: Load = OwnLoad(
    SharedPrefixCompletions(
        requests=40, prefixes=40, prefix_words=300, suffix_words=20, answer_tokens=4, per_s=10
    )
)


def loads(size: str, *, vllm_python: Path, tokenizer: Path) -> Mapping[str, Load]:
    """By name, in the order they are run; `size` is "short" or "full"."""
    scale = {"short": 1, "full": 3}[size]
    return {
        "prefix_repetition": VllmBench(
            python=vllm_python,
            tokenizer=tokenizer,
            dataset="prefix_repetition",
            prompts=40 * scale,
            per_s=8,
            options={
                "prefix-repetition-prefix-len": 1024,
                "prefix-repetition-suffix-len": 128,
                "prefix-repetition-num-prefixes": 10 * scale,
                "prefix-repetition-output-len": 16,
            },
        ),
        "random": VllmBench(
            python=vllm_python,
            tokenizer=tokenizer,
            dataset="random",
            prompts=30 * scale,
            per_s=6,
            options={"random-input-len": 800, "random-output-len": 16},
        ),
        "chat": OwnLoad(
            Chats(
                sessions=6 * scale,
                turns=6,
                system_prompts=3 * scale,
                system_words=150,
                turn_words=150,
                answer_tokens=16,
                mean_pause_s=0.5 * scale,
            )
        ),
        "completions": OwnLoad(
            SharedPrefixCompletions(
                requests=40 * scale,
                prefixes=14 * scale,
                prefix_words=600,
                suffix_words=80,
                answer_tokens=8,
                per_s=6,
            )
        ),
    }
