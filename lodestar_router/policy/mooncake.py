"""Mooncake's conductor without KV transfer: the lowest estimated time to first token.

In       prompt tokens, cached prefix, own in-flight prefill counts.
Out      Decision; costs in seconds.
Cost     O(candidates), two calls of the prefill-time function per candidate.
Source   Qin et al., Mooncake, FAST '25, algorithm 1.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import ClassVar

from lodestar_router.core.types import Candidate, Decision, RoutedRequest
from lodestar_router.features.rates import DEFAULT_RATE, own_uncached_tokens
from lodestar_router.policy.by_cost import decide_by_cost

PrefillTime = Callable[[str, int, int], float]
"""(GPU kind, tokens to compute, tokens cached before them) -> seconds on an idle engine."""


def default_prefill_s(gpu: str, new_tokens: int, cached_tokens: int) -> float:
    """The same linear time for every GPU kind: an 8B model on a mid-range one."""
    return DEFAULT_RATE.base_s(new_tokens)


class Mooncake:
    """Choose where queued prefills and the own one end first.

        cost(c) = q * prefill(P / q, 0) + prefill(n - h, h)

        q = inflight_prefill_requests(c), P = inflight_prefill_tokens(c)
        n = prompt tokens, h = cached_prefix_tokens(c)

    Algorithm 1 sums the prefill time of each queued request; only their number and
    total are known here, so they are taken as equal and without a prefix. It may
    also fetch a longer prefix from another engine, and rejects above a TTFT limit:
    neither exists here. It fits `prefill_s` offline, per GPU; without one, all
    kinds count as equally fast. Ties random.
    """

    name: ClassVar[str] = "mooncake"
    reads_prompt: ClassVar[bool] = True

    def __init__(self, rng: Random, *, prefill_s: PrefillTime = default_prefill_s) -> None:
        self._rng = rng
        self._prefill_s = prefill_s

    def choose(self, request: RoutedRequest, candidates: Sequence[Candidate]) -> Decision:
        costs = [self._ttft_s(request, candidate) for candidate in candidates]
        return decide_by_cost(self.name, candidates, costs, self._rng)

    def _ttft_s(self, request: RoutedRequest, candidate: Candidate) -> float:
        engine = candidate.engine
        new_tokens = own_uncached_tokens(request, candidate)
        own_s = self._prefill_s(engine.gpu, new_tokens, request.prompt_tokens - new_tokens)
        queued = engine.inflight_prefill_requests
        if not queued:
            return own_s
        each_tokens = engine.inflight_prefill_tokens // queued
        return queued * self._prefill_s(engine.gpu, each_tokens, 0) + own_s
