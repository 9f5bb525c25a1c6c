"""Run one load under one policy, and a whole comparison of policies.

In       ready engines, policies, loads.
Out      LoadResult values, one per (policy, load, repeat).
Errors   those of the engines, the router and `vllm bench serve`; a request that
         fails is a number in the result.

Runs are independent: a router starts with an empty state directory, and the
engines' prefix caches are emptied before each load. Within a repeat every policy
gets the same seed; the order of policies rotates from one repeat to the next.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perf.serving.loads import WARM_UP, Load
from perf.serving.records import LoadResult, mean_s, percentile_s
from tests.e2e.engines import VllmEngine
from tests.e2e.router import RouterProcess, routed
from tests.e2e.tiny_model import MODEL_NAME

# Compared unless others are named: the learned policy, the heuristics to beat, and
# what needs no knowledge at all.
COMPARED = (
    "roundrobin", "random", "least_request", "lmetric", "prefix_cache_and_load", "lodestar",
)  # fmt: skip

_SETTLE_S = 0.3  # for the last events and stats to reach the router
_IDLE_TIMEOUT_S = 30.0


def compare(
    policies: Sequence[str],
    loads: Mapping[str, Load],
    engines: Sequence[VllmEngine],
    *,
    repeats: int,
    first_seed: int,
    directory: Path,
) -> Iterator[LoadResult]:
    """Every policy under every load, `repeats` times, as results come in."""
    for repeat in range(repeats):
        seed = first_seed + repeat
        turn = repeat % len(policies)
        for policy in [*policies[turn:], *policies[:turn]]:
            with routed(policy, engines, directory / f"{repeat}-{policy}") as router:
                WARM_UP.run(router.url, MODEL_NAME, seed)
                for name, load in loads.items():
                    yield measure(name, load, router, engines, repeat=repeat, seed=seed)


def measure(
    name: str,
    load: Load,
    router: RouterProcess,
    engines: Sequence[VllmEngine],
    *,
    repeat: int = 0,
    seed: int = 0,
) -> LoadResult:
    """One load on cold prefix caches."""
    cool(engines)
    before = [_Counts.of(engine) for engine in engines]
    measured = load.run(router.url, MODEL_NAME, seed)
    _wait_idle(engines)
    spent = [_Counts.of(engine) - counts for engine, counts in zip(engines, before, strict=True)]
    answered = sum(counts.requests for counts in spent) or 1
    agreement = measured.agreement
    return LoadResult(
        policy=router.policy,
        load=name,
        repeat=repeat,
        seed=seed,
        requests=measured.requests,
        failed=measured.failed,
        duration_s=measured.duration_s,
        mean_ttft_s=mean_s(measured.ttfts_s),
        p50_ttft_s=percentile_s(measured.ttfts_s, 50),
        p99_ttft_s=percentile_s(measured.ttfts_s, 99),
        prompt_tokens=sum(counts.prompt_tokens for counts in spent),
        cached_tokens=sum(counts.cached_tokens for counts in spent),
        share={e.name: c.requests / answered for e, c in zip(engines, spent, strict=True)},
        expected_equal=None if agreement is None else agreement.equal,
        expected_compared=None if agreement is None else agreement.compared,
        differing=() if agreement is None else agreement.differing[:5],
        errors=measured.errors,
    )


def cool(engines: Sequence[VllmEngine]) -> None:
    """Empty every prefix cache, and let the router learn of it."""
    _wait_idle(engines)
    for engine in engines:
        engine.reset_prefix_cache()
        engine.step()  # vLLM publishes AllBlocksCleared with its next step
    time.sleep(_SETTLE_S)


def _wait_idle(engines: Sequence[VllmEngine]) -> None:
    deadline_s = time.monotonic() + _IDLE_TIMEOUT_S
    for engine in engines:
        while not engine.idle() and time.monotonic() < deadline_s:
            time.sleep(0.1)
    time.sleep(_SETTLE_S)


@dataclass(frozen=True, slots=True)
class _Counts:
    """An engine's own totals since it started."""

    requests: int
    prompt_tokens: int
    cached_tokens: int

    @classmethod
    def of(cls, engine: VllmEngine) -> "_Counts":
        counters = engine.counters()
        return cls(
            requests=int(counters["vllm:request_success_total"]),
            prompt_tokens=int(counters["vllm:prompt_tokens_total"]),
            cached_tokens=int(counters["vllm:prompt_tokens_cached_total"]),
        )

    def __sub__(self, other: "_Counts") -> "_Counts":
        return _Counts(
            self.requests - other.requests,
            self.prompt_tokens - other.prompt_tokens,
            self.cached_tokens - other.cached_tokens,
        )
