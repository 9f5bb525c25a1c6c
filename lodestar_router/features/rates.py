"""The physical base of a TTFT prediction: prefill work over prefill speed.

    base_s = t0_s + (pending_uncached_tokens + own_uncached_tokens) * s_per_token

In       per GPU kind a Rate; for kinds never seen, the pooled one.
Out      seconds, always positive.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lodestar_router.core.types import Candidate, RoutedRequest


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast one GPU kind prefills this fleet's model."""

    t0_s: float  # TTFT of a request with nothing to compute
    s_per_token: float  # added per uncached prompt token ahead of the first token

    def base_s(self, uncached_tokens: float) -> float:
        """Seconds to the first token behind that many uncached tokens, own included."""
        return self.t0_s + uncached_tokens * self.s_per_token


# An 8B model on a mid-range data-centre GPU, to an order of magnitude. Among
# engines of one kind the choice does not depend on it, so routing is sound
# before the first fit.
DEFAULT_RATE = Rate(0.03, 2e-4)


@dataclass(frozen=True, slots=True)
class TtftRates:
    """Rates by GPU kind, with a fallback."""

    pooled: Rate = DEFAULT_RATE
    by_gpu: Mapping[str, Rate] = field(default_factory=dict)

    def of(self, gpu: str) -> Rate:
        """The kind's own rate, or the pooled one."""
        return self.by_gpu.get(gpu, self.pooled)


def own_uncached_tokens(request: RoutedRequest, candidate: Candidate) -> int:
    """Prompt tokens the candidate would have to compute; 1 at least, as in vLLM."""
    return max(1, request.prompt_tokens - candidate.cached_prefix_tokens)


def work_tokens(request: RoutedRequest, candidate: Candidate) -> int:
    """Uncached tokens ahead of this request's first token on the candidate, own included."""
    return own_uncached_tokens(request, candidate) + candidate.engine.inflight_prefill_tokens
